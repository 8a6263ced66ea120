"""YOLO's text files: one object a line, `class cx cy w h` or `class x1 y1 x2 y2 ...`.

The numbers are shares of the picture as a viewer shows it, turned as its EXIF orientation says: YOLO's own
training reads pictures so. The document speaks of pixels as `decode_rgb` gives them.
"""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..decode import TRANSPOSING, Header, PictureError, read_header
from .files import is_picture, read_lines, relative
from .source import Document, Fault, Layout, Source
from .yolo_yaml import CLASSES, Described, describe

LEEWAY = 0.01  # how far a coordinate may leave [0, 1]: tools round, and draw a little over the edge
DECIMALS = 6  # of a pixel: below what any text says, above what arithmetic blurs
MIRRORED_X, MIRRORED_Y = (2, 3, 7, 8), (3, 4, 6, 7)  # EXIF orientations, once rows and columns are exchanged
LABELS = {"images": "labels", "Images": "Labels", "IMAGES": "LABELS"}


class _Refused(Exception):
    """A line that is no object."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Object(NamedTuple):
    """One line: the class and its box, in shares of the picture as it is shown."""

    number: int
    cx: float
    cy: float
    w: float
    h: float


def yolo_layout(path: Path) -> Layout:
    """The dataset of a `data.yaml`, or of a folder that holds one.

    Raises:
        ValueError: The file is faulty, or names a path outside the folder.
    """
    described = describe(path)
    categories: list[Document] = [{"id": k, "name": name} for k, name in sorted(described.names.items())]
    readers = {split: partial(_read, described, split, categories) for split in described.pictures}
    return Layout("yolo", described.root, readers, lambda: categories)


def _read(described: Described, split: str, categories: list[Document]) -> Source:
    root = described.root
    pictures, faults = described.pictures[split]()
    reading = _Reading(root, described.names)
    for picture in pictures:
        reading.add(picture)
    labels = [label_file(picture, root) for picture in pictures]
    if labels and not any(label.is_file() for label in labels):
        text = f"no picture of '{split}' has a label file; the first would be {relative(labels[0], root)}"
        faults.append(Fault(relative(pictures[0], root), "labels-missing", text))
    return Source(
        "yolo",
        described.path,
        root,
        {"images": reading.images, "annotations": reading.annotations, "categories": categories},
        tuple(reading.places),
        (*faults, *reading.faults, *_labels_shared(root, pictures), *_labels_alone(root, pictures)),
    )


class _Reading:
    """The document, as it grows picture by picture."""

    def __init__(self, root: Path, names: Mapping[int, str]) -> None:
        self._root = root
        self._names = names
        self.images: list[Document] = []
        self.annotations: list[Document] = []
        self.places: list[str] = []
        self.faults: list[Fault] = []

    def add(self, picture: Path) -> None:
        """Read a picture's header and its label file; one without a label file has no objects."""
        name = relative(picture, self._root)
        try:
            header = read_header(picture)
        except PictureError as error:
            self.faults.append(Fault(name, "picture-unreadable", str(error)))
            return
        h, w = size_hw = header.shown_hw
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, "file_name": name, "width": w, "height": h})
        label = label_file(picture, self._root)
        try:
            lines = read_lines(label) if label.exists() else []
        except ValueError as error:
            self.faults.append(Fault(relative(label, self._root), "file-unreadable", str(error)))
            return
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields:
                continue
            place = f"{relative(label, self._root)}:{number}"
            try:
                box = parse_object(fields, self._names)
            except _Refused as refused:
                self.faults.append(Fault(place, refused.kind, str(refused)))
                continue
            self._note(image_id, box.number, to_pixels(box, header, size_hw), place)

    def _note(self, image_id: int, category: int, bbox: list[float], place: str) -> None:
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": category,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": 0,
            }
        )
        self.places.append(place)


def parse_object(fields: Sequence[str], names: Mapping[int, str]) -> _Object:
    """One line's object; of a polygon the box around it.

    Raises:
        _Refused: It is none.
    """
    line = " ".join(fields)[:80]
    try:
        number, *values = map(float, fields)
    except ValueError as error:
        raise _Refused("line-malformed", f"'{line}' is not all numbers") from error
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise _Refused(
            "line-malformed",
            f"'{line}' has {len(fields)} fields, not 5 (class cx cy w h) or 7, 9, ... (class x1 y1 x2 y2 ..)",
        )
    if not all(map(math.isfinite, (number, *values))):
        raise _Refused("line-malformed", f"'{line}' has a number that is not finite")
    if number not in names:
        known = f"{min(names)} to {max(names)}"
        raise _Refused("class-unknown", f"'{line}' is of class {fields[0]}; the dataset names {known}")
    if not -LEEWAY <= min(values) <= max(values) <= 1 + LEEWAY:
        raise _Refused(
            "not-normalised", f"'{line}' has a coordinate outside 0 to 1: shares are meant, not pixels"
        )
    if len(values) == 4:
        return _Object(int(number), *values)
    left, right = min(values[0::2]), max(values[0::2])
    top, bottom = min(values[1::2]), max(values[1::2])
    return _Object(int(number), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def to_pixels(box: _Object, header: Header, size_hw: tuple[int, int]) -> list[float]:
    """[left, top, width, height] in the pixels that `decode_rgb` gives for this size.

    Where a turned picture has the size of the stored one, it is not turned: the box is turned back instead.
    """
    _, cx, cy, w, h = box
    if header.size_hw == size_hw:
        if header.orientation in TRANSPOSING:
            cx, cy, w, h = cy, cx, h, w
        cx = 1 - cx if header.orientation in MIRRORED_X else cx
        cy = 1 - cy if header.orientation in MIRRORED_Y else cy
    height, width = size_hw
    left_top_wh = ((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height)
    return [round(value, DECIMALS) for value in left_top_wh]


def label_file(picture: Path, root: Path) -> Path:
    """Where a picture's objects stand: below `labels` if it is below `images`, else beside it."""
    parts = list(picture.relative_to(root).parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] in LABELS:
            parts[k] = LABELS[parts[k]]
            break
    return Path(root, *parts).with_suffix(".txt")


def _labels_shared(root: Path, pictures: Sequence[Path]) -> list[Fault]:
    """Label files of pictures whose names differ by the ending alone: they cannot fit all of them."""
    owners: dict[Path, list[Path]] = {}
    for picture in dict.fromkeys(pictures):
        owners.setdefault(label_file(picture, root), []).append(picture)
    return [
        Fault(
            relative(label, root),
            "label-shared",
            f"belongs to {' and '.join(picture.name for picture in found)}",
        )
        for label, found in owners.items()
        if len(found) > 1 and label.is_file()
    ]


def _labels_alone(root: Path, pictures: Sequence[Path]) -> list[Fault]:
    """Label files beside those in use that belong to no picture at all."""
    folders = {picture.parent for picture in pictures}
    expected = {
        label_file(folder / name, root)
        for folder in folders
        for name in os.listdir(folder)
        if is_picture(name)
    }
    alone = [
        path
        for folder in sorted({path.parent for path in expected} - folders)
        if folder.is_dir()
        for path in sorted(folder.glob("*.txt"))
        if path not in expected and path.name != CLASSES
    ]
    text = "belongs to no picture, so nothing reads it"
    return [Fault(relative(path, root), "label-without-picture", text) for path in alone]
