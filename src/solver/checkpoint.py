"""Checkpoint files: written so that a crash cannot lose one, read without running code from them."""

import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .portable import SUFFIX, read_portable
from .seal import FORMAT, SealedWriter, is_sealed, seal_is_intact

MEGABYTE = 1e6
REPLACE = "copy or download it again, or take another checkpoint of that run"
"""What helps against a damaged file."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`, the file's format and the libraries' versions to `path`, whole or not at all.

    The file is written beside its place, synced and renamed: whatever happens, `path` holds the old
    checkpoint or the new one. It ends with a seal, by which `read_checkpoint` finds any damage. Values are
    stored as tensors and plain Python values alone, which `torch.load(weights_only=True)` accepts; NumPy's
    become such.

    Args:
        path: A `.pth` file; its folder is made where it is absent.
        state: Nested mappings and sequences of tensors, numbers, strings, booleans and None.

    Raises:
        ValueError: The disk is full, or the file cannot be written for another reason.
        TypeError: A value is of another kind.
    """
    with written(path, state) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


@contextmanager
def written(path: Path, state: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary file beside `path` that holds `state`, sealed and synced, for the block to move there.

    Whatever is left of it after the block is removed. Arguments and errors are `save_checkpoint`'s, those of
    the system in the block included.
    """
    content = {"format": FORMAT, **{key: _plain(value, key) for key, value in state.items()}}
    content["versions"] = {"torch": str(torch.__version__), "numpy": str(np.__version__)}
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            _write(content, file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except (OSError, RuntimeError) as error:
        raise ValueError(_why_not_written(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Where a file is written before it is moved to `path`; what a killed run left there is worth nothing."""
    return path.with_name(path.name + ".tmp")


class Checkpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: Where it lies.
        content: What `read_checkpoint` gives.
    """

    path: Path
    content: dict[str, Any]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What is stored at `path`, ours or another program's `.pth` or safetensors, with its tensors on the CPU.

    A seal is compared, and where there is none the zip members' checksums; `torch.load` does neither, and
    loads a flipped bit as it is.

    Raises:
        ValueError: There is no such file, it is damaged, no checkpoint, of a newer format, or holds objects
            that could run code.
    """
    try:
        if not path.is_file():
            raise ValueError(_why_absent(path))
        if path.suffix == SUFFIX:
            return read_portable(path)
        sealed = is_sealed(path)
        if not sealed:
            _refuse_damage(path)
        elif not seal_is_intact(path):
            raise ValueError(
                f"{path}: is damaged, its content differs from the checksum at its end; {REPLACE}"
            )
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}); {REPLACE}") from error
    content = _load(path)
    number = content.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise ValueError(
            f"{path}: is of checkpoint format {number}, and this version reads up to {FORMAT}; "
            "update this repository"
        )
    if number == FORMAT and not sealed:
        raise ValueError(
            f"{path}: is damaged, the checksum at its end is missing; {REPLACE}. Where you wrote it yourself "
            "with torch.save, leave its entry 'format' out"
        )
    return content


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_why_refused(path, str(error))) from error
    except _GARBAGE as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"{path}: cannot be read as a checkpoint ({first_line}); {REPLACE}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, no mapping of weights by name; give a checkpoint "
            "that train.py wrote, or a state dict"
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


def _write(content: dict[str, Any], file: BinaryIO) -> None:
    """`torch.save` with a seal."""
    writer: Any = SealedWriter(file)
    try:
        torch.save(content, writer)
    except RuntimeError as error:  # torch's own, while it closes after a failure
        raise writer.failure or error from None
    writer.seal()


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


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; systems that cannot open a folder do so by themselves."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why_not_written(path: Path, error: OSError | RuntimeError) -> str:
    said = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
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
        raise ValueError(f"{path}: is empty; {REPLACE}")
    damaged: str | None = None
    try:
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
    except (*_GARBAGE, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: is damaged ({error}); {REPLACE}") from error
    if not is_archive and start == b"PK\x03\x04":
        raise ValueError(f"{path}: is cut short, its end is missing; {REPLACE}")
    if not is_archive and start[:1] != b"\x80":  # what torch wrote before 1.6 is a row of pickles
        raise ValueError(f"{path}: {_NO_CHECKPOINT}")
    if damaged is not None:
        raise ValueError(f"{path}: is damaged, '{damaged}' in it differs from its checksum; {REPLACE}")


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
