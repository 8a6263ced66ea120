"""Fills a backbone with pretrained weights: an act of its own, that succeeds wholly or stops the run."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import timm.models
from timm.models.eva import Eva
from torch import Tensor, nn

from .dino_adapter import DinoAdapter
from .dinov2 import convert_dinov2
from .dinov3_backbone import DINOv3Backbone
from .dinov3_keys import convert_to_timm
from .hgnetv2 import HGNetv2
from .lora import is_factor, under_base_layers
from .vit import published_as
from .weight_files import READ_ERRORS, check_names_and_shapes, in_short, read_state_dict, tensors_of_part

_log = logging.getLogger(__name__)

# The classifier of HGNetv2 in timm's and in PaddlePaddle's files.
_HGNET_HEAD = re.compile(r"^(head|last_conv|fc|classifier)\.")


class _Wish(NamedTuple):
    """What a backbone wants to be filled with.

    Attributes:
        section: Its section in a configuration.
        model: The model's name there.
        net: What is filled.
        repository: Where timm's copy lies, "" for nowhere.
        convert: Gives a checkpoint's tensors the names that `net` has.
    """

    section: str
    model: str
    net: nn.Module
    repository: str
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

    @property
    def from_scratch(self) -> str:
        """How to do without weights."""
        return f"`-u {self.section}.pretrained=False` trains from scratch on purpose"


def load_pretrained(backbone: nn.Module) -> None:
    """Fills `backbone` with the weights that its knobs `pretrained` and `checkpoint_path` ask for.

    Nothing is done with `pretrained=False`. Otherwise all weights are loaded, strictly, or none: those of
    `checkpoint_path`, or without one timm's copy from its hub.

    Args:
        backbone: A DINOv3Backbone, a DinoAdapter or an HGNetv2.

    Raises:
        ValueError: The weights cannot be had, or are another model's, or LoRA would stand on random ones; the
            message says why and what to do.
    """
    if not isinstance(backbone, DINOv3Backbone | DinoAdapter | HGNetv2):
        raise TypeError(f"no pretrained weights are known for a {type(backbone).__name__}")
    wish = _wish_of_hgnetv2(backbone) if isinstance(backbone, HGNetv2) else _wish_of_vit(backbone)
    path = backbone.checkpoint_path
    if not backbone.pretrained:
        if getattr(backbone, "has_lora", False):
            raise ValueError(
                f"{wish.section}.lora: it leaves the ViT's weights as they are, and with pretrained: False "
                "these are random; set pretrained: True, start from a detector with -t, or remove lora"
            )
        unused = f" (checkpoint_path {path} is not read)" if path else ""
        _log.warning("%s: pretrained is False, it starts from random weights%s", wish.section, unused)
        return
    source = path or f"huggingface.co/{wish.repository}"
    state = _from_hub(wish) if path is None else _from_file(wish, Path(path))
    try:
        named = wish.convert(state)
        check_names_and_shapes(named, wish.net.state_dict())
    except ValueError as error:
        raise ValueError(
            f"{wish.section}: {source} does not fit the model {wish.model!r}: {error} Give checkpoint_path "
            "the file of that model, or name the model of that file (weights/README.md)."
        ) from error
    wish.net.load_state_dict(named)
    _log.info("%s: %s filled from %s (%d tensors)", wish.section, wish.model, source, len(named))


def _wish_of_vit(backbone: DINOv3Backbone | DinoAdapter) -> _Wish:
    vit = backbone.vit
    repository, tag = published_as(vit)

    def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "sat493m" in Path(backbone.checkpoint_path or "").name and tag != "sat493m":
            raise ValueError(
                "its name says that it was trained on satellite pictures, with a mean and deviation of their "
                "own, which only timm's names with that tag bring (vit_large_patch16_dinov3.sat493m)."
            )
        if not isinstance(vit, Eva):
            return convert_dinov2(state)
        own = vit.state_dict()
        factors = {name: value for name, value in own.items() if is_factor(name)}  # they start as they are
        return under_base_layers(convert_to_timm(state, vit, backbone.full_depth), own) | factors

    return _Wish(type(backbone).__name__, backbone.model_name, vit, repository, convert)


def _wish_of_hgnetv2(backbone: HGNetv2) -> _Wish:
    wanted = backbone.state_dict()

    def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = tensors_of_part(state, ("stem.stem1.conv.weight",), "HGNetv2")
        kept = len(backbone.stages)
        for name in list(named):
            stage = re.match(r"stages\.(\d+)\.", name)
            counts = (
                name.endswith("num_batches_tracked") and name not in wanted
            )  # a frozen norm counts nothing
            if _HGNET_HEAD.match(name) or counts or (stage and int(stage[1]) >= kept):
                del named[name]
        for name in wanted:
            if name.endswith("num_batches_tracked"):  # nor does the file of a frozen one
                named.setdefault(name, wanted[name])
        return named

    return _Wish("HGNetv2", backbone.timm_name, backbone, f"timm/{backbone.timm_name}", convert)


def _from_file(wish: _Wish, path: Path) -> dict[str, Tensor]:
    try:
        return read_state_dict(path)
    except ValueError as error:
        raise ValueError(
            f"{wish.section}.checkpoint_path: {error} Put the weights of {wish.model} there "
            "(weights/README.md says which file and from where), or let timm download its ungated copy with "
            f"`-u {wish.section}.checkpoint_path=null`; {wish.from_scratch}."
        ) from error


def _from_hub(wish: _Wish) -> dict[str, Tensor]:
    if not wish.repository:
        raise ValueError(
            f"{wish.section}: timm publishes no weights for {wish.model!r}; name a file in "
            f"{wish.section}.checkpoint_path (weights/README.md), or {wish.from_scratch}."
        )
    try:
        return dict(timm.models.load_state_dict_from_hf(wish.repository, weights_only=True))
    except READ_ERRORS as error:
        raise ValueError(
            f"{wish.section}: pretrained is True, checkpoint_path is not set, and the weights could not be "
            f"downloaded from huggingface.co/{wish.repository} ({in_short(error)}). Without network: "
            "download the file elsewhere, put it under weights/ and name it in "
            f"{wish.section}.checkpoint_path (weights/README.md says which and from where); "
            f"{wish.from_scratch}."
        ) from error
