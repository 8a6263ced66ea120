"""Files that are there whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

ELSEWHERE = "choose another folder (train.py: --output-dir; tools: -o)"


def make_folder(path: str | Path) -> Path:
    """The folder at `path`, made with its parents where it is not there yet.

    Raises:
        ValueError: It cannot be made, with the reason.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the output folder {folder}: {error.strerror}; {ELSEWHERE}") from error
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
def staged_folder(folder: Path, *, obsolete: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary folder whose files are in `folder` when the block ends well, and vanish otherwise.

    Where there is no `folder` yet it appears in one step, with all of them. Where there is one, a folder
    under a file's name is refused before anything moves; then the files move one by one in the order of
    their names, and what is stopped in between (a kill, a file that the system does not let go) leaves new
    ones beside old ones.

    Args:
        folder: Made where it is missing, when the block ends well; its parents are made at once.
        obsolete: Names of files of an earlier time, which are removed from it last.

    Raises:
        ValueError: The folder cannot be made or a file cannot be moved into it, with the reason.
    """
    home = make_folder(folder if folder.exists() else folder.parent)
    stage = home / f".unfinished-{secrets.token_hex(4)}"
    try:
        stage.mkdir()
    except OSError as error:
        raise ValueError(
            f"cannot write the output folder {folder}: {error.strerror} in {home}; {ELSEWHERE}"
        ) from error
    try:
        yield stage
        if folder.exists():
            _move_into(folder, sorted(stage.iterdir()), [folder / name for name in obsolete])
        else:
            os.replace(stage, folder)
    except OSError as error:
        raise ValueError(f"cannot write into the output folder {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move_into(folder: Path, files: Sequence[Path], obsolete: Sequence[Path]) -> None:
    for target in (*(folder / path.name for path in files), *obsolete):
        if target.is_dir() and not target.is_symlink():
            raise ValueError(f"cannot write {target}: a folder has this name; remove it or {ELSEWHERE}")
    for path in files:
        os.replace(path, folder / path.name)
    for target in obsolete:
        target.unlink(missing_ok=True)
