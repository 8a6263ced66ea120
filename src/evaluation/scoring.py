"""COCO's measure on packed arrays, by faster-coco-eval or pycocotools.

Legend: D detections, C classes, T IoU thresholds, R recall thresholds, A area ranges, M detection limits.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
from numpy.typing import NDArray

from .ground_truth import GroundTruth

Backend = Literal["faster_coco_eval", "pycocotools"]

ROWS_AT_ONCE = 50_000
"""Detections scored in one go: both libraries want a dict of about half a kilobyte for each."""


class Found(NamedTuple):
    """All detections of a dataset, best or not; equal scores keep their order within a picture.

    Attributes:
        image_index: [D] int64, row of the ground truth's `image_ids`.
        labels: [D] int64.
        boxes_xywh_px: [D, 4] float64.
        scores: [D] float64.
    """

    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes_xywh_px: NDArray[np.float64]
    scores: NDArray[np.float64]


class Curves(NamedTuple):
    """What both libraries give; -1 where a class has no object of that area.

    Attributes:
        precision: [T, R, C, A, M]; T is 0.50 to 0.95 by 0.05, R is 0 to 1 by 0.01,
            A is (all, small, medium, large), M is (1, 10, 100).
        recall: [T, C, A, M].
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def score(truth: GroundTruth, found: Found, num_classes: int, backend: Backend) -> Curves:
    """Match detections with objects and measure precision and recall of each class.

    COCO's measure treats every class alone, so the classes are scored in blocks of bounded memory; a class
    without objects counts nowhere and is left at -1.
    """
    precision = np.full((10, 101, num_classes, 4, 3), -1.0)
    recall = np.full((10, num_classes, 4, 3), -1.0)
    for block in _blocks(truth, found, num_classes):
        chosen_truth = np.isin(truth.labels, block)
        chosen_found = np.isin(found.labels, block)
        images = np.union1d(truth.image_index[chosen_truth], found.image_index[chosen_found])
        result = _run(
            _dataset(
                images,
                block,
                truth.image_index[chosen_truth],
                truth.labels[chosen_truth],
                truth.boxes_xywh_px[chosen_truth],
                areas=truth.areas[chosen_truth],
                crowd=truth.crowd[chosen_truth],
            ),
            _dataset(
                images,
                block,
                found.image_index[chosen_found],
                found.labels[chosen_found],
                found.boxes_xywh_px[chosen_found],
                scores=found.scores[chosen_found],
            ),
            backend,
        )
        precision[:, :, block] = result.precision
        recall[:, block] = result.recall
    return Curves(precision, recall)


def _blocks(truth: GroundTruth, found: Found, num_classes: int) -> Iterator[list[int]]:
    """Ascending classes that have objects, in blocks of about `ROWS_AT_ONCE` detections."""
    objects = np.bincount(truth.labels, minlength=num_classes)
    rows = np.bincount(found.labels, minlength=num_classes)
    block: list[int] = []
    size = 0
    for label in np.flatnonzero(objects).tolist():
        if block and size + int(rows[label]) > ROWS_AT_ONCE:
            yield block
            block, size = [], 0
        block.append(label)
        size += int(rows[label])
    if block:
        yield block


def _dataset(
    images: NDArray[np.int64],
    block: list[int],
    image_index: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes_xywh_px: NDArray[np.float64],
    *,
    areas: NDArray[np.float64] | None = None,
    crowd: NDArray[np.bool_] | None = None,
    scores: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Rows as the dicts that COCO's tools read.

    The tools mark a match by the id of what was matched and read 0 as "no match": so ids start at 1 here,
    whatever the file says.
    """
    areas = boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3] if areas is None else areas
    crowd = np.zeros(len(labels), np.bool_) if crowd is None else crowd
    columns = zip(
        image_index.tolist(),
        labels.tolist(),
        boxes_xywh_px.tolist(),
        areas.tolist(),
        crowd.tolist(),
        strict=True,
    )
    annotations: list[dict[str, Any]] = [
        {
            "id": number,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": area,
            "iscrowd": int(is_crowd),
        }
        for number, (image, label, box, area, is_crowd) in enumerate(columns, 1)
    ]
    if scores is not None:
        for annotation, value in zip(annotations, scores.tolist(), strict=True):
            annotation["score"] = value
    return {
        "images": [{"id": image} for image in images.tolist()],
        "categories": [{"id": label} for label in block],
        "annotations": annotations,
    }


def _run(truth: dict[str, Any], found: dict[str, Any], backend: Backend) -> Curves:
    """The arrays of one library, its own talk on stdout kept back."""
    with contextlib.redirect_stdout(io.StringIO()):
        if backend == "pycocotools":
            evaluation = pycocotools.cocoeval.COCOeval(_pycoco(truth), _pycoco(found), "bbox")
        else:
            evaluation = faster_coco_eval.COCOeval_faster(
                faster_coco_eval.COCO(truth), faster_coco_eval.COCO(found), "bbox"
            )
        evaluation.evaluate()
        evaluation.accumulate()
    return Curves(np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"]))


def _pycoco(dataset: dict[str, Any]) -> Any:
    coco = pycocotools.coco.COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco
