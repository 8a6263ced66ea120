"""From any known format to the text of a COCO JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .annotations import read_repaired
from .formats import Document, Format, Source, recognise


class Converted(NamedTuple):
    """One split as COCO's JSON.

    Attributes:
        format: What it was in.
        img_folder: Folder that its file names are relative to.
        document: COCO's `images`, `annotations` and `categories`, and what else there was.
    """

    format: Format
    img_folder: Path
    document: Document


def convert(path: Path, *, split: str | None = None, img_folder: Path | None = None) -> Converted:
    """One split of a dataset of any known format.

    Args:
        path: The dataset.
        split: `train`, `val`, `test` or `all`; None takes the only one.
        img_folder: Folder that the file names are to be relative to; None takes the reader's.

    Raises:
        ValueError: It is no dataset, or not all of it can be read.
    """
    layout = recognise(path)
    if split is None and len(layout.readers) > 1:
        raise ValueError(f"{path} has the splits {', '.join(layout.readers)}; name one with --split")
    source = checked(layout.read(split or next(iter(layout.readers))))
    folder = img_folder.resolve() if img_folder else source.img_folder
    head = {"info": {"description": f"converted from {layout.format}"}, "licenses": []}
    return Converted(layout.format, folder, {**head, **seen_from(folder, source)})


def checked(source: Source) -> Source:
    """The source with its document repaired where that can be done; empty boxes stay.

    Raises:
        ValueError: Not all of it can be read, or used.
    """
    source.require_readable()
    return source._replace(document=read_repaired(source.path, source))


def seen_from(folder: Path, source: Source) -> Document:
    """The source's document with file names relative to another folder.

    Raises:
        ValueError: A picture lies outside that folder.
    """
    if folder == source.img_folder:
        return source.document
    images = []
    for image in source.document["images"]:
        path = source.img_folder / image["file_name"]
        if not path.is_relative_to(folder):
            raise ValueError(f"picture {path} does not lie in {folder}; name a folder above all pictures")
        images.append({**image, "file_name": path.relative_to(folder).as_posix()})
    return {**source.document, "images": images}


def to_json(document: Document) -> bytes:
    """The text of a document."""
    return json.dumps(document, allow_nan=False).encode()


def refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """Keep what is there.

    Raises:
        ValueError: A file is there already, and `force` is not set.
    """
    present = [str(path) for path in paths if path.exists()]
    if present and not force:
        raise ValueError(f"{', '.join(present)} is there already; --force replaces it")
