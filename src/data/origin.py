"""Where the pictures and objects of a loader come from: the paths it states, or the dataset of `data`."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..core import DatasetSettings
from .annotation_cache import load_annotations
from .formats import Source, img_folder_of, recognise
from .packed import PackedAnnotations


class Origin(NamedTuple):
    """What a dataset is read from.

    Attributes:
        img_folder: Folder that file names are relative to.
        ann_file: The COCO JSON, or what the source was read from.
        source: What was read already; None where the JSON is yet to be read.
    """

    img_folder: Path
    ann_file: Path
    source: Source | None = None


class ReadSet(NamedTuple):
    """A dataset whose annotations were read, once for all that a run does with them.

    Attributes:
        img_folder: Folder that file names are relative to.
        ann_file: What was read.
        annotations: What it says.
    """

    img_folder: Path
    ann_file: Path
    annotations: PackedAnnotations


def find_origins(data: str | None, settings: Mapping[str, DatasetSettings]) -> dict[str, Origin]:
    """The origins of several loaders' pictures; only what is no COCO JSON is read.

    Args:
        data: The experiment's dataset, if it names one.
        settings: Each loader's own, by the part of `data` that is meant, `train` or `val`; paths in it win
            over `data`.

    Raises:
        ValueError: Neither names pictures, or the dataset has no such split.
    """
    found, layout = {}, None
    for split, stated in settings.items():
        if stated.img_folder is not None and stated.ann_file is not None:
            found[split] = Origin(Path(stated.img_folder), Path(stated.ann_file))
            continue
        if data is None:
            raise ValueError(f"nothing names the pictures of {split}: -u data=/path/to/dataset does")
        layout = layout or recognise(Path(data))
        if split in layout.jsons:
            path = layout.jsons[split]
            found[split] = Origin(img_folder_of(layout.root, path), path)
        else:
            source = layout.read(split)
            found[split] = Origin(source.img_folder, source.path, source)
    return found


def find_origin(data: str | None, settings: DatasetSettings, split: str) -> Origin:
    """The origin of one loader's pictures, as `find_origins`."""
    return find_origins(data, {split: settings})[split]


def read_origin(origin: Origin, settings: DatasetSettings, split: str) -> ReadSet:
    """All that a run needs of one loader's pictures.

    Args:
        origin: As `find_origin` gives it.
        settings: The loader's own.
        split: Of `val` what is to be scored is kept, too.

    Raises:
        ValueError: As `read_annotations`.
    """
    annotations = load_annotations(
        origin.ann_file,
        source=origin.source,
        drop_empty_boxes=settings.drop_empty_boxes,
        scored=split == "val",
    )
    return ReadSet(origin.img_folder, origin.ann_file, annotations)


def read_set(data: str | None, settings: DatasetSettings, split: str) -> ReadSet:
    """One loader's pictures, found as by `find_origin` and read."""
    return read_origin(find_origin(data, settings, split), settings, split)


def count_classes(data: str) -> int:
    """The number of classes of a dataset.

    Raises:
        ValueError: It is no dataset, or has no class.
    """
    layout = recognise(Path(data))
    count = len(layout.categories())
    if count == 0:
        raise ValueError(f"dataset {layout.root} ({layout.format}) has no class: nothing in it is labelled")
    return count
