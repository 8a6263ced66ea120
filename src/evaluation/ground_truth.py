"""The objects that a COCO annotation file states, packed in arrays and checked.

Legend: P pictures, G objects, C classes.
"""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..structures import ClassNames

logger = logging.getLogger(__name__)


class GroundTruth(NamedTuple):
    """The objects of a dataset; pictures are numbered in the order of their ids.

    Attributes:
        image_ids: [P] int64, ascending.
        image_index: [G] int64, row of `image_ids`.
        labels: [G] int64, contiguous class indices from 0.
        boxes_xywh_px: [G, 4] float64, left, top, width and height in pixels.
        areas: [G] float64, the file's `area` (of the mask, where there is one), else width * height.
        crowd: [G] bool.
    """

    image_ids: NDArray[np.int64]
    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes_xywh_px: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "GroundTruth":
        """These objects of the same pictures."""
        return self._replace(
            image_index=self.image_index[chosen],
            labels=self.labels[chosen],
            boxes_xywh_px=self.boxes_xywh_px[chosen],
            areas=self.areas[chosen],
            crowd=self.crowd[chosen],
        )

    def num_objects(self, num_classes: int) -> NDArray[np.int64]:
        """[C] objects of each class, crowd regions left out."""
        return np.bincount(self.labels[~self.crowd], minlength=num_classes).astype(np.int64)


def read_ground_truth(
    path: str | Path, classes: ClassNames, document: dict[str, Any] | None = None
) -> GroundTruth:
    """Read a COCO annotation file; `info`, `licenses`, `area` and `iscrowd` may be missing.

    What is in another format comes as a document of COCO's form, and `path` is its name in messages. Objects
    of pictures that the file does not list are left out with a warning, as pycocotools does.

    Raises:
        ValueError: The file is missing or no COCO JSON, or an object has no box, or one of a category that
            `classes` does not have.
    """
    content = _read_json(path) if document is None else document
    image_ids = np.unique(
        np.array([_integer(image, "id", "images", path) for image in content["images"]], np.int64)
    )
    labels_of = {original: label for label, original in enumerate(classes.ids)}
    known = set(image_ids.tolist())
    rows: list[tuple[int, int, Any, Any, bool]] = []
    lost = 0
    for annotation in content.get("annotations", []):
        image_id = _integer(annotation, "image_id", "annotations", path)
        if image_id not in known:
            lost += 1
            continue
        category = _integer(annotation, "category_id", "annotations", path)
        if category not in labels_of:
            raise ValueError(
                f"{path}: an object of picture {image_id} has category id {category}, which is none of the "
                f"{len(classes.ids)} classes to be scored (ids {_some(classes.ids)}); "
                "evaluate with the annotation file that belongs to this model's classes"
            )
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{path}: an object of picture {image_id} has bbox {box!r}, not [x, y, w, h]")
        area = annotation.get("area")
        area = box[2] * box[3] if area is None else area
        rows.append((image_id, labels_of[category], box, area, bool(annotation.get("iscrowd", 0))))
    if lost:
        logger.warning("%s: %d objects belong to pictures that the file does not list; left out", path, lost)
    return GroundTruth(
        image_ids,
        np.searchsorted(image_ids, np.array([row[0] for row in rows], np.int64)),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], np.bool_),
    )


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"annotation file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"annotation file {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ValueError(f"annotation file {path} is not a COCO JSON: it has no list 'images'")
    return content


def _integer(entry: dict[str, Any], key: str, where: str, path: str | Path) -> int:
    """`entry[key]` as an integer; ids written as strings of digits are taken as numbers."""
    try:
        return int(entry[key])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: an entry of '{where}' has no whole number '{key}': {entry}") from error


def _some(values: tuple[int, ...], limit: int = 12) -> str:
    """The first values in words."""
    shown = ", ".join(map(str, values[:limit]))
    return shown + (", ..." if len(values) > limit else "")
