"""Files that are there whole or not at all."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def make_folder(path: str | Path) -> Path:
    """The folder at `path`, made with its parents where it is not there yet.

    Raises:
        ValueError: It cannot be made, with the reason.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the output folder {folder}: {error.strerror}; choose another one with --output-dir "
            "(train.py) or -o (tools)"
        ) from error
    return folder


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`: the file that the block writes there takes the place of `path` when it ends well.

    If it does not, that file is removed, and `path` is what it was. Two processes never get the same name.

    Raises:
        OSError: The file cannot be moved; the block's own errors pass.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, and to the disk, in one step.

    Raises:
        ValueError: The file cannot be written, with the reason; what was at `path` is still there.
    """
    make_folder(path.parent)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder` whose files move up when the block ends well, and vanish otherwise.

    Args:
        folder: Made where it is missing, and removed again if it was made and the block ends badly.

    Raises:
        ValueError: The folder cannot be made or a file cannot be moved into it, with the reason.
    """
    existed = folder.exists()
    make_folder(folder)
    try:
        stage = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    except OSError as error:
        raise ValueError(f"cannot write into the output folder {folder}: {error.strerror}") from error
    done = False
    try:
        yield stage
        for path in sorted(stage.iterdir()):
            os.replace(path, folder / path.name)
        done = True
    except OSError as error:
        raise ValueError(f"cannot write into the output folder {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not done and not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
