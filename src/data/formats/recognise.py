"""From a folder, or a file in it, to the dataset that it holds."""

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from .coco import coco_layout, find_coco, find_roboflow, roboflow_layout
from .source import Layout
from .voc import is_voc, voc_layout
from .yolo import yolo_layout
from .yolo_yaml import find_description

logger = logging.getLogger(__name__)

EXPECTED = """\
  COCO:      annotations/instances_train.json and instances_val.json (or train.json, val.json)
  Roboflow:  train/_annotations.coco.json and valid/_annotations.coco.json
  YOLO:      data.yaml with names, train and val
  VOC:       Annotations/*.xml and JPEGImages, with ImageSets/Main/train.txt and val.txt"""


def recognise(path: Path) -> Layout:
    """The dataset that a folder holds; a `data.yaml` or a COCO JSON may be named itself.

    Nothing of its pictures and labels is read yet.

    Raises:
        ValueError: There is no dataset of a known format, or its description is faulty.
    """
    path = path.resolve()
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise ValueError(f"dataset {path} does not exist; correct data=")
    try:
        return _of_folder(path)
    except OSError as error:
        raise ValueError(f"dataset {path} cannot be read: {error}") from error


def _of_folder(path: Path) -> Layout:
    found = _candidates(path)
    if not found:
        inner = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir() and _candidates(folder)]
        hint = f"\nThese folders in it are datasets: {', '.join(inner)}" if inner else ""
        raise ValueError(f"folder {path} holds no dataset of a known format:\n{EXPECTED}{hint}")
    chosen = _choose(found)
    if len(found) > 1:
        others = ", ".join(name for name in found if name != chosen.format)
        _say_once(f"dataset {path} is read as {chosen.format}; it could be read as {others}, too")
    return chosen


@functools.cache
def _say_once(text: str) -> None:
    logger.warning(text)


def _choose(found: Mapping[str, Callable[[], Layout]]) -> Layout:
    """The first that has a training and a validation split, else one of them, else simply the first.

    tools/dataset/split.py writes COCO's JSON beside what it splits.
    """
    layouts: list[Layout] = []
    for make in found.values():
        layouts.append(make())
        if {"train", "val"} <= layouts[-1].readers.keys():
            return layouts[-1]
    return max(layouts, key=lambda layout: len({"train", "val"} & layout.readers.keys()))


def _of_file(path: Path) -> Layout:
    if path.suffix.lower() in {".yaml", ".yml"}:
        return yolo_layout(path)
    if path.suffix.lower() == ".json":
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        return coco_layout(root, {"all": path})
    raise ValueError(f"{path} is no dataset: name its folder, its data.yaml or its COCO JSON")


def _candidates(root: Path) -> dict[str, Callable[[], Layout]]:
    """What a folder may be, by format, likeliest first."""
    found: dict[str, Callable[[], Layout]] = {}
    if files := find_coco(root):
        found["coco"] = lambda: coco_layout(root, files)
    if exported := find_roboflow(root):
        found["roboflow"] = lambda: roboflow_layout(root, exported)
    if find_description(root) is not None:
        found["yolo"] = lambda: yolo_layout(root)
    if is_voc(root):
        found["voc"] = lambda: voc_layout(root)
    return found
