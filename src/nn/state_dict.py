"""Reads upstream D-FINE's state dicts: renames what is called otherwise here, drops what is computed here."""

import re
from collections.abc import Mapping

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
