"""Reads files of pretrained weights, whoever wrote them, and compares them with a model."""

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# What reading or downloading a file may raise.
READ_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, SafetensorError)

# What other programs wrap a state dict in; averaged weights first, since those are the ones meant for use.
_WRAPPERS = ("ema", "model_ema", "teacher", "module", "model", "state_dict")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_NAMED_FAULTS = 4


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file (.safetensors, or anything torch.save wrote), out of any wrapper.

    A file whose name ends in a hash, such as `...-08c60483.pth`, must have a sha256 that begins so
    (torch.hub's convention, which Meta's files follow); one with a `digest_file` beside it, the sha256 there.

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
    except READ_ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as weights ({in_short(error)}): the download may be incomplete, or be a "
            "web page saved in place of the file; get it again."
        ) from error
    return _unwrapped(content, path)


def in_short(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def tensors_of_part(state: Mapping[str, Tensor], landmarks: Sequence[str], what: str) -> dict[str, Tensor]:
    """The tensors of one network in a checkpoint, without the prefix that they have in a larger model.

    Args:
        state: The whole checkpoint.
        landmarks: Ends of keys by which the network is found; it has one of them, once.
        what: The network's name, for messages.

    Raises:
        ValueError: The network is not in it, or more than once.
    """
    prefixes = sorted({key[: -len(end)] for key in state for end in landmarks if key.endswith(end)})
    if not prefixes:
        first = ", ".join(list(state)[:5]) or "nothing"
        raise ValueError(f"no {what} is in it: no key ends in {' or '.join(landmarks)}; it has {first} ...")
    if len(prefixes) > 1:
        raise ValueError(f"it has several, under {', '.join(map(repr, prefixes))}; keep the one you mean.")
    prefix = prefixes[0]
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def check_names_and_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Compares a converted checkpoint with a model's state dict.

    Raises:
        ValueError: Tensors are missing, left over or of another shape; the first of them are named.
    """
    faults = [
        f"{name} is {tuple(given[name].shape)} there and {tuple(wanted[name].shape)} here"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    faults += [f"{name} is not there" for name in wanted if name not in given]
    faults += [f"{name} has no place here" for name in given if name not in wanted]
    if faults:
        more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
        raise ValueError(f"{'; '.join(faults[:_NAMED_FAULTS])}{more}.")


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = [content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
        content = inner[0] if inner else None
    raise ValueError(f"{path} holds no state dict, nor one under any of the keys {', '.join(_WRAPPERS)}.")


def digest_file(path: Path) -> Path:
    """Where the sha256 of `path` may be stated, as `sha256sum` writes and checks it."""
    return path.with_name(f"{path.name}.sha256")


def _check_hash(path: Path) -> None:
    stated = digest_file(path)
    in_name = _HASH_IN_NAME.search(path.name)
    if in_name is not None:
        wanted, where = in_name[1], "its name"
    elif stated.is_file():
        wanted, where = stated.read_text(encoding="ascii", errors="replace").partition(" ")[0], stated.name
    else:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(wanted):
        raise ValueError(
            f"{path} should have a sha256 that begins with {wanted[:16]}, as {where} says, but it begins "
            f"with {digest.hexdigest()[:16]}: it is damaged or another file. Get it again; if you changed "
            "it yourself, give it another name."
        )
