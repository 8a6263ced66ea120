"""Pascal VOC: one XML file a picture, with the corners of its boxes."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from ..decode import PictureError, read_header
from .files import (
    SPLITS,
    as_posix,
    by_stem,
    files_below,
    is_picture,
    pictures_below,
    read_lines,
    relative,
    split_folders,
)
from .source import Document, Fault, Layout, Source
from .voc_xml import VocError, VocFile, read_voc

NAME_LISTS = ("labelmap.txt", "labels.txt", "classes.txt")
Reader = Callable[[Path], VocFile]


class _Split(NamedTuple):
    """Where one split's files are.

    Attributes:
        path: What defines it: a list of names, or the folder of the XML files.
        xml_folder: The folder of the XML files.
        img_folder: The folder of the pictures, or one above it.
        names: Files of the list without their ending, each with its line; None takes all in `xml_folder`.
    """

    path: Path
    xml_folder: Path
    img_folder: Path
    names: Sequence[tuple[int, str]] | None


def is_voc(root: Path) -> bool:
    """Whether a folder has XML files where VOC's are."""
    return bool(_find_splits(root))


def voc_layout(root: Path) -> Layout:
    """The dataset of a folder with `Annotations` and `JPEGImages`, or with such folders for each split."""
    root = root.resolve()
    splits = _find_splits(root)
    read = cache(read_voc)  # the classes are those in use, so that each file is needed twice
    categories = cache(partial(_categories, root, splits, read))
    readers = {}
    for name, split in splits.items():
        others = [part.img_folder for key, part in splits.items() if key != name]
        alone = split.names is None and not any(f.is_relative_to(split.img_folder) for f in others)
        readers[name] = partial(_read, root, split, read, categories, all_pictures=alone)
    return Layout("voc", root, readers, categories)


def _children(folder: Path, *names: str) -> list[Path]:
    """The subfolders of these names, in capitals or not."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in names]


def _has_xml(folder: Path) -> bool:
    return any(not path.name.startswith(".") for path in folder.glob("*.xml"))


def _find_splits(root: Path) -> dict[str, _Split]:
    pictures = next(iter(_children(root, "jpegimages", "images")), root)
    for annotations in _children(root, "annotations"):
        inner = {split: path for split, path in split_folders(annotations).items() if _has_xml(path)}
        if inner and not _has_xml(annotations):
            return {
                split: _Split(path, path, next(iter(_children(pictures, path.name.lower())), pictures), None)
                for split, path in inner.items()
            }
        if files_below(annotations, root, {".xml"})[0]:
            return _listed_splits(root, annotations, pictures)
    found: dict[str, _Split] = {}
    for split, folder in split_folders(root).items():
        xml_folder = next(iter(_children(folder, "annotations")), folder)
        if _has_xml(xml_folder):
            img_folder = next(iter(_children(folder, "jpegimages", "images")), folder)
            found[split] = _Split(xml_folder, xml_folder, img_folder, None)
    return found


def _listed_splits(root: Path, annotations: Path, pictures: Path) -> dict[str, _Split]:
    """The splits of `ImageSets/Main`; `all` where it has none."""
    lists = {
        split: path
        for split, names in SPLITS.items()
        for name in reversed(names)
        if (path := root / "ImageSets" / "Main" / f"{name}.txt").is_file()
    }
    if not lists:
        return {"all": _Split(annotations, annotations, pictures, None)}
    return {
        split: _Split(path, annotations, pictures, _read_list(path, annotations))
        for split, path in lists.items()
    }


def _read_list(path: Path, xml_folder: Path) -> list[tuple[int, str]]:
    """The names that a file of `ImageSets/Main` lists, with their lines.

    Behind a name there may be 1, 0 or -1, as in the lists of one class.
    """
    names = []
    for number, line in enumerate(read_lines(path), start=1):
        name = line.strip()
        if is_picture(name) or name.lower().endswith(".xml"):
            name = name.rpartition(".")[0]
        first, _, flag = name.rpartition(" ")
        if flag in {"1", "0", "-1"} and not os.path.isfile(xml_folder / f"{name}.xml"):
            name = first.strip()
        if name:
            names.append((number, name))
    return names


def _categories(root: Path, splits: Mapping[str, _Split], read: Reader) -> list[Document]:
    """COCO's categories, numbered from 1: those of a list of names, else all in use, by their name."""
    listed = next((root / name for name in NAME_LISTS if (root / name).is_file()), None)
    if listed is not None:
        lines = [line.split(":")[0].strip() for line in read_lines(listed)]
        names = [line for line in lines if line and not line.startswith("#") and line != "background"]
    else:
        used = {split: part for split, part in splits.items() if split != "test"} or splits
        names = sorted({name for part in used.values() for name in _names_in_use(root, part, read)})
    return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]


def _names_in_use(root: Path, split: _Split, read: Reader) -> set[str]:
    found: set[str] = set()
    for _, path in _xml_files(root, split)[0]:
        if not path.is_relative_to(root):
            continue
        try:
            found |= {item.name for item in read(path).objects if item.name}
        except VocError:
            continue  # the reader of the split notes it
    return found


def _xml_files(root: Path, split: _Split) -> tuple[list[tuple[int, Path]], list[Fault]]:
    """The XML files of a split, each with its line in the list (0 without a list), and links to none."""
    if split.names is None:
        files, faults = files_below(split.xml_folder, root, {".xml"})
        return [(0, path) for path in files], faults
    named = [(number, split.xml_folder / f"{name}.xml") for number, name in split.names]
    return [(number, Path(os.path.normpath(path))) for number, path in named], []


def _read(
    root: Path,
    split: _Split,
    read: Reader,
    categories: Callable[[], list[Document]],
    *,
    all_pictures: bool,
) -> Source:
    reading = _Reading(root, split, read, categories())
    files, faults = _xml_files(root, split)
    reading.faults += faults
    for line, path in files:
        place = f"{relative(split.path, root)}:{line}"
        if not path.is_relative_to(root):
            reading.fault(place, "path-outside", f"{path} lies outside the dataset's folder")
        elif os.path.isfile(path):
            reading.add(path)
        else:
            reading.fault(place, "file-missing", f"{relative(path, root)} is not there")
    if all_pictures:
        reading.note_left_out()
    document = {
        "images": reading.images,
        "annotations": reading.annotations,
        "categories": reading.categories,
    }
    return Source("voc", split.path, root, document, tuple(reading.places), tuple(reading.faults))


class _Reading:
    """The document, as it grows file by file."""

    def __init__(self, root: Path, split: _Split, read: Reader, categories: list[Document]) -> None:
        self._root = root
        self._read = read
        self._split = split
        pictures, self.faults = pictures_below(split.img_folder, root)
        self._pictures = by_stem(pictures)
        self._left = dict.fromkeys(pictures)  # those that no XML file is for, in their order
        self._xml_of: dict[Path, str] = {}
        self._ids = {category["name"]: category["id"] for category in categories}
        self.categories = categories
        self.images: list[Document] = []
        self.annotations: list[Document] = []
        self.places: list[str] = []

    def fault(self, place: str, kind: str, text: str) -> None:
        """Note what cannot be taken."""
        self.faults.append(Fault(place, kind, text))

    def add(self, path: Path) -> None:
        """Read one XML file, and see that its picture is there."""
        place = relative(path, self._root)
        try:
            content = self._read(path)
        except VocError as error:
            self.fault(place, "file-unreadable", str(error))
            self._keep(self._pictures.get(path.stem, []))
            return
        pictures = self._pictures_of(path, content)
        self._keep(pictures)
        if len(pictures) != 1:
            found = f"{len(pictures)} pictures are" if pictures else "no picture for it is"
            self.fault(
                place, "picture-missing", f"{found} called {path.stem}, or '{content.filename}' as it says"
            )
            return
        picture = pictures[0]
        if self._xml_of.setdefault(picture, place) != place:
            text = f"no picture of its own is there, and {picture.name} is that of {self._xml_of[picture]}"
            self.fault(place, "picture-missing", text)
            return
        size_hw = content.size_hw
        if size_hw is None:
            try:
                size_hw = read_header(picture).shown_hw
            except PictureError as error:
                self.fault(relative(picture, self._root), "picture-unreadable", str(error))
                return
        self._note_objects(content, place, self._note_picture(picture, size_hw))

    def note_left_out(self) -> None:
        """Note the pictures that no XML file is for."""
        text = "has no XML file, so it is left out"
        self.faults += [Fault(relative(p, self._root), "picture-without-label", text) for p in self._left]

    def _keep(self, pictures: Sequence[Path]) -> None:
        for picture in pictures:
            self._left.pop(picture, None)

    def _pictures_of(self, path: Path, content: VocFile) -> list[Path]:
        """The picture called as the XML file, else the one that it names, if that has no file of its own.

        Of several in subfolders it is the one whose subfolder is called as the XML file's.
        """
        stated = as_posix(content.filename).rpartition("/")[2]
        where = self._split.img_folder / path.relative_to(self._split.xml_folder).parent
        near = [picture for picture in self._pictures.get(path.stem, []) if picture.parent == where]
        if near:
            return [picture for picture in near if picture.name == stated] or near
        stem = path.stem if path.stem in self._pictures else Path(stated).stem
        if stem != path.stem and path.with_name(f"{stem}.xml").exists():
            return []
        candidates = self._pictures.get(stem, [])
        return [picture for picture in candidates if picture.name == stated] or candidates

    def _note_picture(self, picture: Path, size_hw: tuple[int, int]) -> int:
        image_id = len(self.images) + 1
        name = relative(picture, self._root)
        self.images.append({"id": image_id, "file_name": name, "height": size_hw[0], "width": size_hw[1]})
        return image_id

    def _note_objects(self, content: VocFile, place: str, image_id: int) -> None:
        for count, item in enumerate(content.objects, start=1):
            where = f"{place}:{item.line}" if item.line else f"{place}: object {count}"
            if not item.name or item.bbox is None:
                what = "a name" if not item.name else "a box of four numbers"
                self.fault(where, "object-malformed", f"object {count} has not {what}")
                continue
            if item.name not in self._ids:
                known = ", ".join(self._ids)
                self.fault(where, "class-unknown", f"'{item.name}' is none of the classes {known}")
                continue
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": self._ids[item.name],
                    "bbox": item.bbox,
                    "area": item.bbox[2] * item.bbox[3],
                    "iscrowd": 0,
                    "difficult": int(item.difficult),
                }
            )
            self.places.append(where)
