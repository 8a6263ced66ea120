"""COCO's measure by the libraries that others use, from packed arrays.

Legend: D detections, G objects.
"""

import contextlib
import io
from typing import Any

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
from numpy.typing import NDArray

from ..structures import GroundTruth
from .matching import Curves, Found


def pycocotools_curves(truth: GroundTruth, found: Found, classes: list[int]) -> Curves:
    """What pycocotools says of these classes."""
    with contextlib.redirect_stdout(io.StringIO()):  # its own talk
        sides = [_pycoco(dataset) for dataset in _datasets(truth, found, classes)]
        return _curves(pycocotools.cocoeval.COCOeval(*sides, "bbox"))


def faster_coco_eval_curves(truth: GroundTruth, found: Found, classes: list[int]) -> Curves:
    """What faster-coco-eval says of these classes."""
    sides = [faster_coco_eval.COCO(dataset) for dataset in _datasets(truth, found, classes)]
    return _curves(faster_coco_eval.COCOeval_faster(*sides, "bbox"))


def _curves(evaluation: Any) -> Curves:
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])
    return Curves(precision[..., -1], np.asarray(evaluation.eval["recall"]))


def _pycoco(dataset: dict[str, Any]) -> Any:
    coco = pycocotools.coco.COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _datasets(truth: GroundTruth, found: Found, classes: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides as COCO JSON, each picture of either side in both."""
    shared = {
        "images": [{"id": i} for i in np.union1d(truth.image_index, found.image_index).tolist()],
        "categories": [{"id": label} for label in classes],
    }
    areas = found.boxes_xywh_px[:, 2] * found.boxes_xywh_px[:, 3]
    objects = _annotations(truth.image_index, truth.labels, truth.boxes_xywh_px, truth.areas)
    for annotation, crowd in zip(objects, truth.crowd.tolist(), strict=True):
        annotation["iscrowd"] = int(crowd)
    detections = _annotations(found.image_index, found.labels, found.boxes_xywh_px, areas)
    for annotation, score in zip(detections, found.scores.tolist(), strict=True):
        annotation["score"] = score
    return {**shared, "annotations": objects}, {**shared, "annotations": detections}


def _annotations(
    image_index: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes_xywh_px: NDArray[np.float64],
    areas: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Rows as the dicts that COCO's tools read.

    The tools mark a match by the id of what was matched and read 0 as "no match": so ids start at 1 here,
    whatever the file says.
    """
    columns = (image_index.tolist(), labels.tolist(), boxes_xywh_px.tolist(), areas.tolist())
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
        for number, (image, label, box, area) in enumerate(zip(*columns, strict=True), 1)
    ]
