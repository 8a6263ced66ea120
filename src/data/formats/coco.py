"""COCO's JSON as people keep it: a file for each split, and a folder of pictures; Roboflow's folders too."""

import json
import mmap
import os
import re
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from .files import SPLITS, relative, split_folders
from .source import Document, Fault, Layout, Source

ROBOFLOW = "_annotations.coco.json"
UNSPLIT = ("instances_default", "instances", "annotations", "_annotations.coco", "coco", "result")
SPLIT_NAME = re.compile(
    r"(?:instances_)?(?P<name>(?P<split>[a-z]+)(?:[-_]?\d{4})?)(?:_annotations)?(?:\.coco)?\Z"
)
HALVES = {"train": "split_train.json", "val": "split_val.json"}  # what tools/dataset/split.py writes
SAMPLE = 20  # file names that tell which folder is meant
FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
CATEGORIES = re.compile(rb'"categories"\s*:\s*(?=\[)')
EMPTY: Document = {"images": [], "annotations": [], "categories": []}


def find_coco(root: Path) -> dict[str, Path]:
    """The annotation files of a folder, by split; `all` where there is only one, of no split.

    The two halves of a split win over what they were made of.

    Raises:
        ValueError: Several files are of the same split.
    """
    halves = {split: root / "annotations" / name for split, name in HALVES.items()}
    divided = all(path.is_file() for path in halves.values())
    files = [*sorted((root / "annotations").glob("*.json")), *sorted(root.glob("*.json"))]
    split_of = {name: split for split, names in SPLITS.items() for name in names}
    found: dict[str, Path] = {}
    for path in files:
        match = SPLIT_NAME.match(path.stem.lower())
        split = split_of.get(match["split"]) if match else None
        if divided and split in halves:
            continue
        if split is not None and split in found:
            raise ValueError(
                f"dataset {root} has several files for '{split}': {found[split].name} and {path.name}; "
                "name the one that is meant, and its pictures: train_dataloader.dataset.ann_file and "
                "img_folder, or val_dataloader's"
            )
        if split is not None:
            found[split] = path
    if divided:
        return {**halves, **found}
    if found:
        return found
    whole = [path for path in files if path.stem.lower() in UNSPLIT]
    return {"all": whole[0]} if len(whole) == 1 else {}


def find_roboflow(root: Path) -> dict[str, Path]:
    """The annotation files of Roboflow's export, by split."""
    folders = split_folders(root)
    return {split: path / ROBOFLOW for split, path in folders.items() if (path / ROBOFLOW).is_file()}


def coco_layout(root: Path, files: Mapping[str, Path]) -> Layout:
    """The dataset of these annotation files."""
    readers = {split: partial(_read_coco, root, path) for split, path in files.items()}
    return Layout("coco", root, readers, partial(_categories_alone, readers, files), files)


def roboflow_layout(root: Path, files: Mapping[str, Path]) -> Layout:
    """The dataset of these annotation files, each beside its pictures."""
    readers = {split: partial(_read_roboflow, root, path) for split, path in files.items()}
    return Layout("roboflow", root, readers, partial(_categories, readers))


def _first_split(readers: Mapping[str, object]) -> str:
    return next(split for split in ("train", "all", *readers) if split in readers)


def _categories(readers: Mapping[str, partial[Source]]) -> list[Document]:
    source = readers[_first_split(readers)]()
    source.require_readable()
    categories = source.document.get("categories")
    return categories if isinstance(categories, list) else []


def _categories_alone(readers: Mapping[str, partial[Source]], files: Mapping[str, Path]) -> list[Document]:
    """The categories without all else that a large JSON holds; all is read where it has not one such list."""
    text, size = _text(files[_first_split(files)]), 1 << 16
    starts = [match.end() for match in CATEGORIES.finditer(text)]
    while len(starts) == 1:
        try:
            part = text[starts[0] : starts[0] + size].decode(errors="ignore")
            found, _ = json.JSONDecoder().raw_decode(part)
        except (ValueError, RecursionError):  # cut off, or broken
            if starts[0] + size >= len(text):
                break
            size *= 16
        else:
            return list(found)
    return _categories(readers)


def _text(path: Path) -> bytes | mmap.mmap:
    """What a file holds, of which only what is looked at is read; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: an empty file
        return b""


def _read_json(root: Path, path: Path) -> tuple[Document, tuple[str, ...], tuple[Fault, ...]]:
    name = relative(path, root)
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, or no text
        return EMPTY, (), (Fault(name, "file-unreadable", f"is not valid JSON ({error})"),)
    if not isinstance(document, dict):
        kind = type(document).__name__
        return EMPTY, (), (Fault(name, "file-unreadable", f"holds a JSON {kind}, not COCO's object"),)
    annotations = document.get("annotations")
    count = len(annotations) if isinstance(annotations, list) else 0
    return document, tuple(f"{name}: annotations[{k}]" for k in range(count)), ()


def _read_coco(root: Path, path: Path) -> Source:
    document, places, faults = _read_json(root, path)
    return Source("coco", path, img_folder_of(root, path), document, places, faults)


def img_folder_of(root: Path, path: Path) -> Path:
    """The folder that has the pictures: the first of the usual ones that has most of the first few."""
    match = SPLIT_NAME.match(path.stem.lower())
    own = (match["name"], *SPLITS.get(match["split"], ()), *_aliases(match["split"])) if match else ()
    candidates = [
        folder for name in own for folder in (root / "images" / name, root / name / "images", root / name)
    ]
    candidates += [root / "images" / "default", root / "images", root / "JPEGImages", root, path.parent]
    names = [_string(match[1]) for match in islice(FILE_NAME.finditer(_text(path)), SAMPLE)]
    present = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
    return max(present, key=lambda folder: sum(os.path.isfile(folder / name) for name in names))


def _string(text: bytes) -> str:
    try:
        return str(json.loads(text))
    except ValueError:  # no text
        return ""


def _aliases(name: str) -> tuple[str, ...]:
    return next((names for names in SPLITS.values() if name in names), ())


def _read_roboflow(root: Path, path: Path) -> Source:
    document, places, faults = _read_json(root, path)
    return Source("roboflow", path, path.parent, without_group(document), places, faults)


def without_group(document: Document) -> Document:
    """The document without the category 0 that Roboflow adds as the group of all others.

    It has the name of the project and no objects; the supercategory of the others is its name, and its own is
    `none`. A category of objects is never left out.
    """
    categories, annotations = document.get("categories"), document.get("annotations")
    if not isinstance(categories, list) or not isinstance(annotations, list):
        return document
    entries = [c for c in categories if isinstance(c, dict)]
    group = next((c for c in entries if c.get("id") == 0 and c.get("supercategory") == "none"), None)
    others = [c for c in entries if c is not group]
    if group is None or not others or any(c.get("supercategory") != group.get("name") for c in others):
        return document
    if any(isinstance(a, dict) and a.get("category_id") == 0 for a in annotations):
        return document
    return {**document, "categories": [c for c in categories if c is not group]}
