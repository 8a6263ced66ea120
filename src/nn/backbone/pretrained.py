"""Fills a backbone with pretrained weights: an act of its own, that succeeds wholly or stops the run."""

import hashlib
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm.models
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .dinov3_backbone import DINOv3Backbone
from .dinov3_keys import convert_to_timm

_log = logging.getLogger(__name__)

# What other programs wrap a state dict in; averaged weights first, since those are the ones meant for use.
_WRAPPERS = ("ema", "model_ema", "teacher", "module", "model", "state_dict")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_READ_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, SafetensorError)
_MODEL_OF_WIDTH = {384: "dinov3_small", 768: "dinov3_base", 1024: "dinov3_large", 1280: "dinov3_huge_plus"}
_FROM_SCRATCH = "`-u DINOv3Backbone.pretrained=False` trains from scratch on purpose"


def load_pretrained(backbone: nn.Module) -> None:
    """Fills `backbone` with the weights that its knobs `pretrained` and `checkpoint_path` ask for.

    Nothing is done with `pretrained=False`. Otherwise all weights are loaded, strictly, or none.

    Raises:
        ValueError: They cannot be had, or are another model's; the message says why and what to do.
    """
    if isinstance(backbone, DINOv3Backbone):
        _load_dinov3(backbone)
    else:
        raise TypeError(f"no pretrained weights are known for a {type(backbone).__name__}")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file (.safetensors, or anything torch.save wrote), out of any wrapper.

    A file whose name ends in a hash, such as `...-08c60483.pth`, must have a sha256 that begins so
    (torch.hub's convention, which Meta's files follow).

    Raises:
        ValueError: The file is missing, damaged, or holds no state dict.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    _check_hash(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _READ_ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as weights ({_in_short(error)}): the download may be incomplete, or be a "
            "web page saved in place of the file; get it again."
        ) from error
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = [content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
        content = inner[0] if inner else None
    raise ValueError(f"{path} holds no state dict, nor one under any of the keys {', '.join(_WRAPPERS)}.")


def _check_hash(path: Path) -> None:
    match = _HASH_IN_NAME.search(path.name)
    if match is None:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(match[1]):
        raise ValueError(
            f"{path} should have a sha256 that begins with {match[1]}, as its name says, but it begins with "
            f"{digest.hexdigest()[: len(match[1])]}: it is damaged or another file. Get it again; if you "
            "changed it yourself, give it a name without the hash."
        )


def _load_dinov3(backbone: DINOv3Backbone) -> None:
    if not backbone.pretrained:
        unused = (
            f" (checkpoint_path {backbone.checkpoint_path} is not read)" if backbone.checkpoint_path else ""
        )
        _log.warning("DINOv3Backbone: pretrained is False, the ViT starts from random weights%s", unused)
        return
    if backbone.checkpoint_path is None:
        source, state = _from_hub(backbone)
    else:
        source, state = backbone.checkpoint_path, _from_file(backbone, Path(backbone.checkpoint_path))
    try:
        named = convert_to_timm(state, backbone.vit, backbone.full_depth)
        _check_names_and_shapes(named, backbone.vit.state_dict())
    except ValueError as error:
        raise ValueError(
            f"DINOv3Backbone: {source} does not fit model_name {backbone.model_name!r}: {error} Give "
            "checkpoint_path the file of that model, or model_name the model of that file "
            "(weights/README.md)."
        ) from error
    backbone.vit.load_state_dict(named)
    _log.info("DINOv3Backbone: %s filled from %s (%d tensors)", backbone.model_name, source, len(named))


def _from_file(backbone: DINOv3Backbone, path: Path) -> dict[str, Tensor]:
    tag = backbone.vit.pretrained_cfg["tag"]  # type: ignore[index]  # a dict on a module, that mypy cannot see
    if "sat493m" in path.name and tag != "sat493m":
        raise ValueError(
            f"DINOv3Backbone: {path} was trained on satellite pictures, with a mean and deviation of their "
            "own: model_name must be timm's name with its tag (such as vit_large_patch16_dinov3.sat493m)."
        )
    try:
        return read_state_dict(path)
    except ValueError as error:
        raise ValueError(
            f"DINOv3Backbone.checkpoint_path: {error} Put the weights of {backbone.model_name} there "
            "(weights/README.md says which file and from where), or let timm download its ungated copy with "
            f"`-u DINOv3Backbone.checkpoint_path=null`; {_FROM_SCRATCH}."
        ) from error


def _from_hub(backbone: DINOv3Backbone) -> tuple[str, dict[str, Tensor]]:
    repository = backbone.vit.pretrained_cfg["hf_hub_id"]  # type: ignore[index]  # as above
    if not repository:
        raise ValueError(
            f"DINOv3Backbone: timm publishes no weights for {backbone.model_name!r}; name a file in "
            f"DINOv3Backbone.checkpoint_path (weights/README.md). {_FROM_SCRATCH}."
        )
    try:
        state = timm.models.load_state_dict_from_hf(str(repository), weights_only=True)
    except (*_READ_ERRORS, ValueError) as error:
        raise ValueError(
            "DINOv3Backbone: pretrained is True, checkpoint_path is not set, and the weights could not be "
            f"downloaded from huggingface.co/{repository} ({_in_short(error)}). Without network: download "
            "the file elsewhere, put it under weights/ and name it in DINOv3Backbone.checkpoint_path "
            f"(weights/README.md says which and from where); {_FROM_SCRATCH}."
        ) from error
    return f"huggingface.co/{repository}", cast(dict[str, Tensor], state)


def _check_names_and_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError with the first tensors that are missing, left over or of another shape."""
    faults = [
        f"{name} is {tuple(given[name].shape)} there and {tuple(wanted[name].shape)} here"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    width = given["cls_token"].shape[-1] if "cls_token" in given else 0
    if faults and width != wanted["cls_token"].shape[-1] and width in _MODEL_OF_WIDTH:
        gated = "blocks.0.mlp.fc1_g.weight" in given
        guess = "dinov3_small_plus" if gated and width == 384 else _MODEL_OF_WIDTH[width]
        faults.insert(0, f"it looks like {guess}")
    faults += [f"{name} is not there" for name in wanted if name not in given]
    faults += [f"{name} has no place here" for name in given if name not in wanted]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(f"{'; '.join(faults[:4])}{more}.")


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
