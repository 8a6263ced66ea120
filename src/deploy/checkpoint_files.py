"""What a checkpoint file holds, and the same weights in other programs' formats."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ..files import write_whole
from ..nn.backbone import HGNetv2
from ..nn.dfine import DFINE
from ..nn.state_dict import is_upstream, to_upstream
from ..solver.checkpoint import read_checkpoint, save_checkpoint
from ..solver.portable import SEAL, SUFFIX, TOLD, card_path, read_card, sealed_card
from ..solver.seal import is_sealed
from ..solver.weights import class_names, load_model, model_state

PARTS = ("model", "ema", "optimizer", "lr_scheduler", "scaler", "rng")
NO_PARAMETER = re.compile(
    r"\.(running_mean|running_var|num_batches_tracked|num_points_scale|anchors|valid_mask|up|reg_scale|periods)$"
)
"""Buffers of ours and upstream's, and its two frozen numbers: `get_info.py` does not count them."""

SHOWN = 8


def describe(path: Path) -> str:
    """A table of what the checkpoint at `path` holds.

    Raises:
        ValueError: It cannot be read, or there are no weights in it.
    """
    checkpoint = read_checkpoint(path)
    state, part = _weights(checkpoint, path)
    published = is_upstream(state)
    ours = f"ours, format {checkpoint['format']}" if "format" in checkpoint else "weights"
    rows = {
        "file": f"{path}, {path.stat().st_size / 1e6:.1f} MB",
        "format": "upstream D-FINE's" if published else "safetensors" if path.suffix == SUFFIX else ours,
        "checksum": _checksum(path),
        "parts": ", ".join(key for key in PARTS if checkpoint.get(key)) or "a state dict",
        "weights in use": "EMA" if part == "ema" else "model",
        "parameters": f"{sum(t.numel() for name, t in state.items() if not NO_PARAMETER.search(name)):,}",
        "tensors": f"{len(state):,}",
        "epochs done": _epochs_done(checkpoint),
        "step": checkpoint.get("step"),
        "best": _pairs(checkpoint.get("best")),
        "config": _config_name(checkpoint),
        "classes": _told_classes(checkpoint, published),
        "versions": _pairs(checkpoint.get("versions")),
    }
    width = max(map(len, rows))
    return "\n".join(f"{key.ljust(width)}  {'-' if value is None else value}" for key, value in rows.items())


def _weights(checkpoint: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        return model_state(checkpoint)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checksum(path: Path) -> str:
    """What `read_checkpoint` compared, which did not object."""
    if path.suffix == SUFFIX:
        return f"intact, in {card_path(path).name}" if SEAL in read_card(path) else "none"
    return "intact, of the whole file" if is_sealed(path) else "none of the whole file"


def _epochs_done(checkpoint: Mapping[str, Any]) -> int | None:
    if "epoch" in checkpoint:
        return int(checkpoint["epoch"])
    return int(checkpoint["last_epoch"]) + 1 if "last_epoch" in checkpoint else None


def _pairs(value: object) -> str | None:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) and value else None


def _config_name(checkpoint: Mapping[str, Any]) -> str | None:
    found = re.search(r"^output_dir:\s*(\S.*?)\s*$", str(checkpoint.get("config") or ""), re.MULTILINE)
    return Path(found.group(1)).name if found else None


def _told_classes(checkpoint: Mapping[str, Any], published: bool) -> str | None:
    classes = class_names(checkpoint)
    if classes is None:
        return None
    named = [f"{i} {name}" for i, name in zip(classes.ids, classes.names, strict=True)]
    listed = ", ".join(named[:SHOWN]) + (", ..." if len(named) > SHOWN else "")
    guess = " (not stated, known by their number)" if published and not checkpoint.get("classes") else ""
    return f"{len(named)}{guess}: {listed}"


def write_portable(source: Path, output: Path) -> None:
    """Write the published weights of `source` as safetensors, and what it says of itself as JSON beside it.

    Raises:
        ValueError: `source` cannot be read, `output` cannot be written or is no `.safetensors`.
    """
    if output.suffix != SUFFIX:
        raise ValueError(f"{output}: --to writes {SUFFIX}, or .pth with --upstream; choose such a name")
    card, data = portable(source)
    write_whole(output.with_suffix(".json"), sealed_card(card, data).encode())
    write_whole(output, data)


def portable(source: Path) -> tuple[dict[str, Any], bytes]:
    """What the checkpoint says of itself, and its published weights as the bytes of a safetensors file.

    The average is taken where there is one.

    Raises:
        ValueError: It cannot be read, or there are no weights in it.
    """
    checkpoint = read_checkpoint(source)
    state, part = _weights(checkpoint, source)
    card = {"weights": part, **{key: checkpoint[key] for key in TOLD if checkpoint.get(key) is not None}}
    classes = class_names(checkpoint)
    if classes is not None:
        card["classes"] = {"names": classes.names, "ids": classes.ids}
    # clones: safetensors refuses tensors that share their memory
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    return card, safetensors.torch.save(tensors, {"format": "pt"})


@contextlib.contextmanager
def config_file(source: Path, stated: Path | None) -> Iterator[Path]:
    """The config to build the checkpoint's model from: `stated`, or a copy of the one it keeps.

    Raises:
        ValueError: There is neither.
    """
    if stated is not None:
        yield stated
        return
    text = read_checkpoint(source).get("config")
    if not isinstance(text, str):
        raise ValueError(
            f"{source}: holds no config; name the one that it was trained with (-c, in Python config=)"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yml"
        path.write_text(text, encoding="utf-8")
        yield path


def write_upstream(source: Path, output: Path, model: DFINE, size_hw: tuple[int, int]) -> None:
    """Write the weights of `source`, the average's and the model's, as D-FINE's own tools read them.

    Args:
        source: A checkpoint of `model`.
        output: A `.pth` file.
        model: Built from the checkpoint's config; its weights are replaced.
        size_hw: The config's `eval_spatial_size`, which the anchors in the file are made for.

    Raises:
        ValueError: `source` is of another model, which has to be one that upstream has, or `output` cannot
            be written or is no `.pth`.
    """
    if output.suffix != ".pth":
        raise ValueError(f"{output}: upstream's format is a .pth file; choose such a name")
    if not isinstance(model.backbone, HGNetv2):
        raise ValueError(
            f"{source}: upstream D-FINE has no {type(model.backbone).__name__}, so that its tools cannot "
            f"read this model; --to a {SUFFIX} file keeps the weights for others"
        )
    checkpoint = read_checkpoint(source)
    published, _ = _weights(checkpoint, source)
    plain = checkpoint.get("model")
    average, classes = checkpoint.get("ema") or {}, checkpoint.get("classes")
    content: dict[str, Any] = {
        "model": _under_upstreams_names(model, plain or published, classes, source, size_hw),
        "ema": {"module": _under_upstreams_names(model, published, classes, source, size_hw)},
        "last_epoch": (_epochs_done(checkpoint) or 0) - 1,  # counted from 0, -1 before the first
    }
    if "updates" in average:
        content["ema"]["updates"] = average["updates"]
    told = {key: checkpoint[key] for key in ("classes", "config") if checkpoint.get(key)}
    save_checkpoint(output, content | told)  # upstream passes over what it does not know


def _under_upstreams_names(
    model: DFINE, state: Mapping[str, Tensor], classes: object, source: Path, size_hw: tuple[int, int]
) -> dict[str, Tensor]:
    load_model(model, {"model": state, "classes": classes}, source)
    decoder: Any = model.decoder
    encoder: Any = model.encoder
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    strides = tuple(level.stride for level in encoder.levels)
    return to_upstream(own, up=decoder.up, reg_scale=decoder.reg_scale, strides=strides, size_hw=size_hw)
