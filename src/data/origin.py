"""Where the pictures and objects of a loader come from: the paths it states, or the dataset of `data`."""

from pathlib import Path
from typing import NamedTuple

from ..core import DatasetSettings
from .formats import Source, recognise


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


def find_origin(data: str | None, settings: DatasetSettings, split: str) -> Origin:
    """The origin of one loader's pictures.

    Args:
        data: The experiment's dataset, if it names one.
        settings: The loader's own; its paths win over `data`.
        split: The part of `data` that is meant, `train` or `val`.

    Raises:
        ValueError: Neither names pictures, or the dataset has no such split.
    """
    if settings.img_folder is not None and settings.ann_file is not None:
        return Origin(Path(settings.img_folder), Path(settings.ann_file))
    if data is None:
        raise ValueError(f"nothing names the pictures of {split}: -u data=/path/to/dataset does")
    source = recognise(Path(data)).read(split)
    return Origin(source.img_folder, source.path, source)


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
