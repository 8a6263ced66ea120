"""What every reader of a dataset gives: a COCO-shaped document, the place of each object, and the faults."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

Format = Literal["coco", "roboflow", "yolo", "voc"]
Document = dict[str, Any]
MAX_SHOWN = 10

FAULTS = {
    "file-unreadable": "annotation files that cannot be read",
    "file-missing": "annotation files that a list names and that are not there",
    "labels-missing": "splits of which no picture has a label file",
    "label-shared": "annotation files that several pictures share",
    "label-without-picture": "annotation files without a picture",
    "picture-without-label": "pictures without an annotation file",
    "line-malformed": "lines that are no object",
    "object-malformed": "objects without a name or a box of four numbers",
    "class-unknown": "objects of a class that the dataset does not name",
    "not-normalised": "coordinates that are no shares of the picture",
    "picture-missing": "pictures that are not there",
    "picture-unreadable": "pictures whose header cannot be read",
    "path-outside": "paths that lead out of the dataset's folder",
}
# nothing that is trained on is wrong or missing
HARMLESS = frozenset({"label-without-picture", "picture-without-label"})


class Fault(NamedTuple):
    """One thing that a reader could not take; what it is about is not in the document.

    Attributes:
        place: The file relative to the dataset's folder, with its line where there is one: `labels/a.txt:3`.
        kind: A key of `FAULTS`.
        text: What stands there and what was expected.
    """

    place: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Source(NamedTuple):
    """One split of a dataset, read.

    Attributes:
        format: What it was written in.
        path: The file or folder that it was read from, for messages.
        img_folder: Folder that the document's file names are relative to.
        document: COCO's `images`, `annotations` (boxes [left, top, width, height] in pixels), `categories`.
            From COCO's own JSON it is as it stands there, unchecked; from other formats well-formed.
        places: Where each of `annotations` was written, in their order.
        faults: What could not be taken, in the order of the files.
    """

    format: Format
    path: Path
    img_folder: Path
    document: Document
    places: tuple[str, ...]
    faults: tuple[Fault, ...]

    def require_readable(self) -> None:
        """Stop where something could not be taken that would be trained on.

        Raises:
            ValueError: The faults, with their places.
        """
        severe = [fault for fault in self.faults if fault.kind not in HARMLESS]
        if severe:
            shown = "\n".join(f"  {fault}" for fault in severe[:MAX_SHOWN])
            more = f"\n  and {len(severe) - MAX_SHOWN} more" if len(severe) > MAX_SHOWN else ""
            raise ValueError(
                f"{self.path}: {len(severe)} faults; correct them, or take these files out:\n{shown}{more}"
            )


class Layout(NamedTuple):
    """A dataset's folder, recognised but not read.

    Attributes:
        format: What it is written in.
        root: Its folder.
        readers: Reads a split, by its name: `train`, `val`, `test`, or `all` where there are no splits.
        categories: Reads COCO's `categories`, which all splits share; a ValueError where they cannot be read.
        jsons: The plain COCO JSON of a split, by its name: it needs none of these readers.
    """

    format: Format
    root: Path
    readers: Mapping[str, Callable[[], Source]]
    categories: Callable[[], list[Document]]
    jsons: Mapping[str, Path] = MappingProxyType({})

    def read(self, split: str) -> Source:
        """The split of this name.

        Raises:
            ValueError: The dataset has no such split.
        """
        if split in self.readers:
            return self.readers[split]()
        raise ValueError(
            f"dataset {self.root} ({self.format}) has no '{split}' split, only "
            f"{', '.join(sorted(self.readers))}; `python tools/dataset/split.py {self.root}` makes a train "
            "and a val split"
        )
