"""What the decoder's knobs may be."""

from collections.abc import Sequence

from ...structures import Level


def check_levels(
    levels: Sequence[Level],
    feat_channels: tuple[int, ...] | None,
    feat_strides: tuple[int, ...] | None,
    num_levels: int | None,
) -> None:
    """Compare what a configuration states of the encoder's maps with what they are.

    Raises:
        ValueError: A statement is wrong.
    """
    truth = {
        "feat_channels": (feat_channels, tuple(level.channels for level in levels)),
        "feat_strides": (feat_strides, tuple(level.stride for level in levels)),
    }
    for name, (stated, true) in truth.items():
        if stated is not None and tuple(stated) != true:
            raise ValueError(
                f"DFINETransformer.{name}: {tuple(stated)} stated, but the encoder gives {true}."
            )
    if num_levels is not None and num_levels != len(levels):
        raise ValueError(
            f"DFINETransformer.num_levels: {num_levels} stated, but the encoder gives {len(levels)}."
        )


def check_numbers(num_classes: int, num_queries: int, num_denoising: int, box_noise_scale: float) -> None:
    """Refuse numbers that no model can have.

    Raises:
        ValueError: One of them is out of range.
    """
    for name, number, least in (
        ("num_classes", num_classes, 1),
        ("num_queries", num_queries, 1),
        ("num_denoising", num_denoising, 0),
        ("box_noise_scale", box_noise_scale, 0),
    ):
        if number < least:
            raise ValueError(f"DFINETransformer.{name}: {number}; at least {least}.")


def checked_points(num_points: tuple[int, ...] | int, num_levels: int) -> tuple[int, ...]:
    """Points of deformable attention on each level.

    Raises:
        ValueError: Their number is not that of the levels, or one is not positive.
    """
    points = (num_points,) * num_levels if isinstance(num_points, int) else tuple(num_points)
    if len(points) != num_levels or min(points) < 1:
        raise ValueError(
            f"DFINETransformer.num_points: {num_points}; one positive number, or one for each of the "
            f"{num_levels} levels."
        )
    return points


def checked_eval_idx(eval_idx: int, num_layers: int) -> int:
    """The layer that `eval_idx` means, from 0.

    Raises:
        ValueError: There is no such layer.
    """
    if num_layers < 1 or not -num_layers <= eval_idx < num_layers:
        raise ValueError(f"DFINETransformer.eval_idx: {eval_idx}; num_layers is {num_layers}.")
    return eval_idx % num_layers


def layer_widths(
    num_layers: int, eval_idx: int, hidden_dim: int, nhead: int, layer_scale: float
) -> tuple[int, ...]:
    """Width of each layer: `hidden_dim` up to `eval_idx`, `layer_scale` times that after it.

    Raises:
        ValueError: A width is no multiple of the number of heads.
    """
    wide = round(layer_scale * hidden_dim)
    for width in (hidden_dim, wide):
        if width < 1 or width % nhead:
            raise ValueError(
                f"DFINETransformer: layers of width {width} (hidden_dim {hidden_dim}, layer_scale "
                f"{layer_scale}); a multiple of nhead ({nhead})."
            )
    return (hidden_dim,) * (eval_idx + 1) + (wide,) * (num_layers - eval_idx - 1)
