"""Files that are there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
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
