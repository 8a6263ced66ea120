"""One XML file of Pascal VOC."""

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

OFFICIAL = "The VOC"  # how <source><database> begins in PASCAL's own files
CORNERS = ("xmin", "ymin", "xmax", "ymax")
OBJECT = re.compile(rb"<object[\s>]")


class VocError(Exception):
    """An XML file, or an object in it, that cannot be read."""


class VocObject(NamedTuple):
    """One object.

    Attributes:
        line: Where it begins, from 1; None where that cannot be told.
        name: Its class; empty where none is given.
        bbox: [left, top, width, height] in pixels; None where there is no box of four numbers.
        difficult: Whether it is marked so.
    """

    line: int | None
    name: str
    bbox: list[float] | None
    difficult: bool


class VocFile(NamedTuple):
    """What a file says.

    Attributes:
        filename: The picture's name; often not the one it has now.
        size_hw: (height, width); None where the file does not say.
        objects: The objects.
    """

    filename: str
    size_hw: tuple[int, int] | None
    objects: list[VocObject]


def read_voc(path: Path) -> VocFile:
    """Read one file.

    PASCAL's own files count pixels from 1 and name the first and the last one that a box covers. What
    labelImg, CVAT and others write has the same form, but its numbers are the corners themselves.

    Raises:
        VocError: It is not there, no XML, or no annotation.
    """
    try:
        data = path.read_bytes()
        if b"<!ENTITY" in data:
            raise VocError("defines XML entities, which are not read")
        root = ElementTree.fromstring(data)
    except OSError as error:
        raise VocError(f"cannot be read ({error.strerror})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise VocError(f"is not valid XML ({error})") from error
    if root.tag != "annotation":
        raise VocError(f"begins with <{root.tag[:40]}>, not with VOC's <annotation>")
    first = 1.0 if _text(root, "source/database").startswith(OFFICIAL) else 0.0
    items = root.findall("object")
    lines: list[int | None] = [data.count(b"\n", 0, match.start()) + 1 for match in OBJECT.finditer(data)]
    if len(lines) != len(items):  # some stand in a comment, or in another object
        lines = [None] * len(items)
    objects = [
        VocObject(line, _text(item, "name"), _read_box(item, first), _text(item, "difficult") == "1")
        for line, item in zip(lines, items, strict=True)
    ]
    h, w = (_number(root, f"size/{side}") for side in ("height", "width"))
    size_hw = (int(h), int(w)) if h >= 1 and w >= 1 else None
    return VocFile(_text(root, "filename"), size_hw, objects)


def _text(item: ElementTree.Element, tag: str) -> str:
    return (item.findtext(tag) or "").strip()


def _number(item: ElementTree.Element, tag: str) -> float:
    """The number in a tag; NaN where there is none."""
    try:
        value = float(_text(item, tag))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _read_box(item: ElementTree.Element, first: float) -> list[float] | None:
    xmin, ymin, xmax, ymax = (_number(item, f"bndbox/{corner}") for corner in CORNERS)
    if math.isnan(xmin + ymin + xmax + ymax):
        return None
    left, top = xmin - first, ymin - first
    return [left, top, xmax - left, ymax - top]
