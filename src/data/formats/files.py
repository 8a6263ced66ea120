"""The files of a dataset's folder: which are pictures, and which paths stay inside."""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from .source import Fault

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
Listed = tuple[list[Path], list[Fault]]  # files, and what stands for files but is none
DRIVE = re.compile(r"[A-Za-z]:")


def is_picture(name: str | Path) -> bool:
    """Whether the file's name ends like a picture's, in capitals or not."""
    return Path(name).suffix.lower() in PICTURES


def pictures_below(folder: Path, root: Path) -> Listed:
    """All pictures in a folder and its subfolders, and the links to folders that lead out of the root."""
    return files_below(folder, root, PICTURES)


def files_below(folder: Path, root: Path, endings: Collection[str]) -> Listed:
    """The files of these endings in a folder and its subfolders, in the same order on every machine.

    Names that begin with a dot are none. Links to folders are followed, but not to where the walk comes
    anyway; those that lead out of the root are faults.
    """
    found: list[Path] = []
    faults: list[Fault] = []
    home = folder.resolve()
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        for parent, folders, names in os.walk(waiting.pop(0)):
            if (real := os.path.realpath(parent)) in seen:
                folders.clear()
                continue
            seen.add(real)
            found += [
                Path(parent, name)
                for name in names
                if Path(name).suffix.lower() in endings and not name.startswith(".")
            ]
            for link in (Path(parent, name) for name in sorted(folders)):
                if not link.is_symlink():
                    continue
                target = link.resolve()
                if inside(link, root) is None:
                    text = f"leads out of the dataset's folder, to {target}"
                    faults.append(Fault(relative(link, root), "path-outside", text))
                elif not home.is_relative_to(target):  # else a circle
                    waiting.append(link)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix()), faults


def by_stem(pictures: Iterable[Path]) -> dict[str, list[Path]]:
    """Pictures by their name without its ending."""
    found: dict[str, list[Path]] = {}
    for path in pictures:
        found.setdefault(path.stem, []).append(path)
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        ValueError: It cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text ({error}); store it so") from error


def as_posix(text: str) -> str:
    """A path as somebody wrote it, on Windows perhaps, with forward slashes."""
    return text.strip().replace("\\", "/")


def is_absolute(text: str) -> bool:
    """Whether a written path begins at a root, of this machine or of a Windows drive."""
    return text.startswith("/") or DRIVE.match(text) is not None


def inside(path: Path, root: Path) -> Path | None:
    """The path without `..`, if it is there and lies, links followed, in the root (resolved) or is it."""
    try:
        resolved = path.resolve()
        if not resolved.exists() or not resolved.is_relative_to(root):
            return None
    except (OSError, RuntimeError, ValueError):  # too long, a circle of links, a NUL: no path at all
        return None
    plain = Path(os.path.normpath(path))
    return plain if plain.is_relative_to(root) else resolved


def relative(path: Path, root: Path) -> str:
    """A path as seen from the root, with forward slashes; as it is where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def split_folders(root: Path) -> dict[str, Path]:
    """The subfolders that are named after a split, by the split."""
    present = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return {
        split: present[name]
        for split, names in SPLITS.items()
        for name in reversed(names)  # the first of them wins
        if name in present
    }
