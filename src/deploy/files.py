"""Files that are there whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents where they are missing.

    Raises:
        ValueError: It cannot be made, with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the output folder {folder}: {error.strerror}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, then move it there in one step.

    Raises:
        ValueError: The file cannot be written, with the reason; what was at `path` is still there.
    """
    make_folder(path.parent)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
