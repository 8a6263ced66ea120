"""Reads and writes upstream D-FINE's state dicts: other names, and buffers that are computed here."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Buffers and frozen numbers of upstream's that follow from the configuration or from the picture's size.
_DROPPED = ("decoder.anchors", "decoder.valid_mask")
_NUMBERS = {
    "decoder.up": "up",
    "decoder.reg_scale": "reg_scale",
    "decoder.decoder.up": "up",
    "decoder.decoder.reg_scale": "reg_scale",
}
_RENAMED = (
    (re.compile(r"^decoder\.decoder\.(layers|lqe_layers)\."), r"decoder.\1."),
    (re.compile(r"^(decoder\.lqe_layers\.\d+)\.reg_conf\."), r"\1.mlp."),
    (re.compile(r"^(encoder\.downsample_convs\.\d+)\.0\."), r"\1."),
)
_GIVEN_BACK = (
    (re.compile(r"^decoder\.(lqe_layers\.\d+)\.mlp\."), r"decoder.\1.reg_conf."),
    (re.compile(r"^decoder\.(layers|lqe_layers)\."), r"decoder.decoder.\1."),
    (re.compile(r"^(encoder\.downsample_convs\.\d+)\."), r"\1.0."),
)
# upstream's candidates: sides of 0.05 that double with each level, and nothing within 0.01 of the edge
_BASE_SIDE, _MARGIN = 0.05, 0.01


def is_upstream(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensor names of a published D-FINE checkpoint (possibly wrapped by DDP)."""
    return any(name.removeprefix("module.").startswith("decoder.decoder.layers.") for name in state_dict)


def from_upstream(state_dict: Mapping[str, Tensor], *, up: float, reg_scale: float) -> dict[str, Tensor]:
    """The tensors of an upstream D-FINE checkpoint under our names, fit to be loaded strictly.

    Args:
        state_dict: What a published file holds under `model` or `ema.module`; names may begin with
            `module.` (DDP).
        up: The model's `DFINETransformer.up`.
        reg_scale: The model's `DFINETransformer.reg_scale`.

    Returns:
        A new mapping of the same tensors. Left out are `decoder.anchors` and `decoder.valid_mask`, and `up`
        and `reg_scale`, which are numbers of the configuration here.

    Raises:
        ValueError: The checkpoint was trained with another `up` or `reg_scale`.
    """
    stated = {"up": up, "reg_scale": reg_scale}
    adapted = {}
    for given_name, tensor in state_dict.items():
        name = given_name.removeprefix("module.")
        if name in _NUMBERS:
            knob = _NUMBERS[name]
            if abs(float(tensor) - stated[knob]) > 1e-6:
                raise ValueError(
                    f"the checkpoint was trained with DFINETransformer.{knob} {float(tensor):g}, the model "
                    f"has {stated[knob]:g}; set DFINETransformer.{knob}: {float(tensor):g}"
                )
        elif name not in _DROPPED:
            for pattern, ours in _RENAMED:
                name = pattern.sub(ours, name)
            adapted[name] = tensor
    return adapted


def to_upstream(
    state_dict: Mapping[str, Tensor],
    *,
    up: float,
    reg_scale: float,
    strides: Sequence[int],
    size_hw: tuple[int, int],
) -> dict[str, Tensor]:
    """Our tensors under upstream's names, with the buffers that upstream's model loads strictly.

    The inverse of `from_upstream`.

    Args:
        state_dict: A model's weights under our names.
        up: The model's `DFINETransformer.up`.
        reg_scale: The model's `DFINETransformer.reg_scale`.
        strides: The decoder's levels, finest first.
        size_hw: (height, width) that upstream's config calls `eval_spatial_size`.
    """
    adapted = {}
    for given_name, tensor in state_dict.items():
        name = given_name
        for pattern, theirs in _GIVEN_BACK:
            name = pattern.sub(theirs, name)
        adapted[name] = tensor
    stated = {"up": up, "reg_scale": reg_scale}
    numbers = {name: torch.tensor([stated[knob]]) for name, knob in _NUMBERS.items()}
    anchors, valid_mask = _upstream_anchors(strides, size_hw)
    return {**adapted, **numbers, "decoder.anchors": anchors, "decoder.valid_mask": valid_mask}


def _upstream_anchors(strides: Sequence[int], size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Every cell's box in logits, [1, n, 4], infinite where [1, n, 1] says that it is no candidate."""
    boxes = []
    for level, stride in enumerate(strides):
        height, width = size_hw[0] // stride, size_hw[1] // stride
        cy, cx = torch.meshgrid(
            (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
        )
        side = torch.full_like(cx, _BASE_SIDE * 2.0**level)
        boxes.append(torch.stack((cx, cy, side, side), -1).reshape(-1, 4))
    anchors = torch.cat(boxes)[None]
    valid = ((anchors > _MARGIN) & (anchors < 1 - _MARGIN)).all(-1, keepdim=True)
    return torch.logit(anchors).masked_fill(~valid, torch.inf), valid
