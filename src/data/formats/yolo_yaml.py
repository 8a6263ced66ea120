"""What a `data.yaml` says: the classes, and where the pictures of each split are."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .files import (
    SPLITS,
    Listed,
    as_posix,
    inside,
    is_absolute,
    is_picture,
    pictures_below,
    read_lines,
    relative,
    split_folders,
)
from .source import Fault

YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASSES = "classes.txt"


class _Loader(yaml.BaseLoader):
    """All values as text, since `no` is a class name, too; a key that stands twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)  # of a list or mapping, which the loader refuses itself, what it holds
            if name in first:
                both = f"in lines {first[name]} and {line}"
                raise yaml.YAMLError(f"the key '{name}' stands twice, {both}; delete one of them")
            first[name] = line
        return super().construct_mapping(node, deep)


class Described(NamedTuple):
    """A YOLO dataset before its pictures and labels are read.

    Attributes:
        path: The file that describes it.
        root: The folder that nothing may leave.
        names: Class names by their number.
        pictures: Lists the pictures of a split, and what its lists name in vain.
    """

    path: Path
    root: Path
    names: Mapping[int, str]
    pictures: Mapping[str, Callable[[], Listed]]


def find_description(folder: Path) -> Path | None:
    """The YAML of a folder, or its `classes.txt` where it has `images` and `labels`; None without either."""
    for name in YAMLS:
        if (folder / name).is_file():
            return folder / name
    others = [path for path in sorted(folder.glob("*.y*ml")) if _is_description(path)]
    if others:
        return others[0]
    has_folders = (folder / "images").is_dir() and (folder / "labels").is_dir()
    return folder / CLASSES if has_folders and (folder / CLASSES).is_file() else None


def _is_description(path: Path) -> bool:
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return False
    return isinstance(content, dict) and "names" in content and ("train" in content or "val" in content)


def describe(path: Path) -> Described:
    """Read a `data.yaml`, or that of a folder.

    Named itself, the file's own `path` is the dataset's folder; of a folder that is named, nothing leads out.

    Raises:
        ValueError: It cannot be used, with what it says and the remedy.
    """
    path = path.resolve()
    file = find_description(path) if path.is_dir() else path
    if file is None:
        raise ValueError(f"folder {path} holds no data.yaml")
    if file.name == CLASSES:
        return _describe_folders(file)
    content = _read_yaml(file)
    if "kpt_shape" in content:
        raise ValueError(
            f"{file} describes key points (kpt_shape), whose lines are not read; export boxes instead"
        )
    names = _read_names(content, file)
    stated = as_posix(str(content.get("path") or "."))
    base = file.parent / stated
    if path.is_dir():
        root = path
        base = base if base.is_dir() and inside(base, root) else root
    else:
        root = base = base.resolve() if base.is_dir() else file.parent
    entries = {
        split: content[key] for split, keys in SPLITS.items() for key in reversed(keys) if content.get(key)
    }
    if not entries:
        raise ValueError(
            f"{file} names no pictures; it needs `train:` and `val:`, folders or lists of pictures"
        )
    pictures = {
        split: partial(_list_entries, value if isinstance(value, list) else [value], split, base, root, file)
        for split, value in entries.items()
    }
    return Described(file, root, names, pictures)


def _describe_folders(file: Path) -> Described:
    """A folder without YAML: `classes.txt`, and `images` with or without a folder for each split."""
    names = {k: line.strip() for k, line in enumerate(read_lines(file)) if line.strip()}
    folder = file.parent / "images"
    folders = split_folders(folder) or {"all": folder}
    pictures = {split: partial(pictures_below, path, file.parent) for split, path in folders.items()}
    return Described(file, file.parent, names, pictures)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file} is no YAML that can be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must be a mapping with `names:`, `train:` and `val:`")
    return content


def _read_names(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = {str(k): name for k, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{file} names no classes; write `names: [cat, dog]` or `names: {{0: cat, 1: dog}}`")
    broken = [f"{k}: {v}" for k, v in names.items() if not (k.isdecimal() and isinstance(v, str) and v)]
    if broken:
        raise ValueError(
            f"{file}: names has {', '.join(broken)}; write numbers from 0 on and a text for each"
        )
    if content.get("nc") and content["nc"] != str(len(names)):
        raise ValueError(
            f"{file} says nc: {content['nc']}, but names {len(names)} classes; correct one of them"
        )
    return {int(k): v for k, v in names.items()}


def _list_entries(entries: list[str], split: str, base: Path, root: Path, file: Path) -> Listed:
    """The pictures that the values of `train:` (or another split) name, in their order."""
    pictures: list[Path] = []
    faults: list[Fault] = []
    for entry in entries:
        found = _find(str(entry), (base,), root)
        if found is None:
            raise ValueError(
                f"{file}: `{split}: {entry}` is not there or leads out of the dataset's folder {root}; write "
                "a path relative to that folder, or name the right one with data="
            )
        if is_picture(found) and not found.is_dir():
            pictures.append(found)
            continue
        listed, missing = pictures_below(found, root) if found.is_dir() else _read_list(found, base, root)
        pictures += listed
        faults += missing
    return pictures, faults


def _find(text: str, bases: tuple[Path, ...], root: Path) -> Path | None:
    """The file or folder that a written path means, if it lies in the root.

    Roboflow writes `../train/images` for what lies beside the file: leading `../` that lead nowhere are left
    out.
    """
    written = as_posix(text)
    if is_absolute(written):
        candidates = [Path(written)]
    else:
        inner = written
        while inner.startswith("../"):
            inner = inner[3:]
        candidates = [base / name for name in (written, inner) if name for base in bases]
    return next((found for path in candidates if (found := inside(path, root)) is not None), None)


def _read_list(file: Path, base: Path, root: Path) -> Listed:
    """The pictures that a text file lists, one a line, relative to it or to the dataset's folder."""
    pictures: list[Path] = []
    faults: list[Fault] = []
    try:
        lines = read_lines(file)
    except ValueError as error:
        return [], [Fault(relative(file, root), "file-unreadable", str(error))]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _find(line, (file.parent, base), root)
        if found is not None and found.is_file():
            pictures.append(found)
        else:
            outside = is_absolute(as_posix(line)) or ".." in Path(as_posix(line)).parts
            kind = "path-outside" if outside else "picture-missing"
            text = f"'{line.strip()}' is no picture inside the dataset's folder"
            faults.append(Fault(f"{relative(file, root)}:{number}", kind, text))
    return pictures, faults
