"""Checkpoint files: written so that a crash cannot lose one, read without running code from them."""

import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .portable import SUFFIX, read_portable

FORMAT = 1
"""Number of the file format; a reader refuses a higher one than its own."""

MEGABYTE = 1e6


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`, the file's format and the libraries' versions to `path`, whole or not at all.

    The file is written beside its place, synced and renamed: whatever happens, `path` holds the old
    checkpoint or the new one. Values are stored as tensors and plain Python values alone, which
    `torch.load(weights_only=True)` accepts; NumPy's become such.

    Args:
        path: A `.pth` file; its folder is made where it is absent.
        state: Nested mappings and sequences of tensors, numbers, strings, booleans and None.

    Raises:
        ValueError: The disk is full, or the file cannot be written for another reason.
        TypeError: A value is of another kind.
    """
    content = {"format": FORMAT, **{key: _plain(value, key) for key, value in state.items()}}
    content["versions"] = {"torch": str(torch.__version__), "numpy": str(np.__version__)}
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # where write() fails, torch's writer raises a RuntimeError of its own while it closes
        raise ValueError(_why_not_written(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What is stored at `path`, ours or another program's `.pth` or safetensors, with its tensors on the CPU.

    The zip members' checksums are compared, which `torch.load` does not do: a flipped bit is found.

    Raises:
        ValueError: There is no such file, it is damaged, no checkpoint, of a newer format, or holds objects
            that could run code.
    """
    if not path.is_file():
        raise ValueError(_why_absent(path))
    if path.suffix == SUFFIX:
        return read_portable(path)
    _refuse_damage(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_why_refused(path, str(error))) from error
    except _GARBAGE as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"{path}: cannot be read as a checkpoint ({first_line}); {_REPLACE}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, no mapping of weights by name; give a checkpoint "
            "that train.py wrote, or a state dict"
        )
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise ValueError(
            f"{path}: is of checkpoint format {content['format']}, and this version reads up to {FORMAT}; "
            "update this repository"
        )
    return content


# what an unpickler may raise on bytes that are no pickle (Python's pickle documentation), and torch on top
_GARBAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_NO_CHECKPOINT = "is no checkpoint; give a .pth file that train.py wrote or that holds a state dict"
_REPLACE = "copy or download it again, or take another checkpoint of that run"


def _plain(value: Any, where: str) -> Any:
    """`value` with detached tensors, dicts, lists, tuples and Python's own scalars only."""
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TypeError(f"a checkpoint holds tensors and plain values; {where} is a {type(value).__name__}")


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; systems that cannot open a folder do so by themselves."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why_not_written(path: Path, error: OSError | RuntimeError) -> str:
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    said = (cause.strerror if isinstance(cause, OSError) else None) or str(cause).partition("\n")[0]
    old = "the checkpoint that was there is unchanged" if path.exists() else "nothing is left there"
    free = ""
    if path.parent.is_dir():
        free = f" ({shutil.disk_usage(path.parent).free / MEGABYTE:,.0f} MB free there)"
    return (
        f"{path}: the checkpoint could not be written: {said}{free}; {old}. Make room or choose another "
        "--output-dir, and go on with -r from the newest checkpoint"
    )


def _why_absent(path: Path) -> str:
    if path.is_dir():
        return f"{path}: is a folder; give a .pth file{_listing(path)}"
    return f"{path}: there is no such checkpoint{_listing(path.parent)}"


def _listing(folder: Path) -> str:
    found = sorted(entry.name for entry in folder.glob("*.pth"))[:8] if folder.is_dir() else []
    return f"; {folder} holds {', '.join(found) or 'no .pth file'}"


def _refuse_damage(path: Path) -> None:
    """Raise ValueError where the file is empty, cut short, or a member differs from its checksum."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"{path}: is empty; {_REPLACE}")
    if not zipfile.is_zipfile(path):
        if start == b"PK\x03\x04":
            raise ValueError(f"{path}: is cut short, its end is missing; {_REPLACE}")
        if start[:1] != b"\x80":  # the format that torch wrote before 1.6 is a row of pickles
            raise ValueError(f"{path}: {_NO_CHECKPOINT}")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); {_REPLACE}") from error
    if damaged is not None:
        raise ValueError(f"{path}: is damaged, '{damaged}' in it differs from its checksum; {_REPLACE}")


def _why_refused(path: Path, said: str) -> str:
    unsafe = re.search(r"(?:Unsupported (?:global|class): (?:GLOBAL )?|GLOBAL )([\w.]+)", said)
    if unsafe is None:
        return f"{path}: {_NO_CHECKPOINT}"
    return (
        f"{path}: holds a Python object ({unsafe.group(1)}) beside tensors and plain values. Reading it "
        "could run code from the file, so it is refused; where you trust it, read it in Python with "
        "torch.load(path, weights_only=False) and save its weights alone: "
        "torch.save({'model': state_dict}, path)"
    )
