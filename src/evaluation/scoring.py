"""COCO's measure over all classes, by arrays or by a library: the numbers are the same.

Legend: D detections, C classes, T IoU thresholds, R recall thresholds, A area ranges, M detection limits.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from ..structures import GroundTruth
from .libraries import faster_coco_eval_curves, pycocotools_curves
from .matching import Curves, Found, array_curves

Backend = Literal["numpy", "faster_coco_eval", "pycocotools"]
MEASURES: dict[Backend, Callable[[GroundTruth, Found, list[int]], Curves]] = {
    "numpy": array_curves,
    "faster_coco_eval": faster_coco_eval_curves,
    "pycocotools": pycocotools_curves,
}

ROWS_AT_ONCE = 50_000
"""Detections scored in one go: the libraries want a dict of about half a kilobyte for each."""


def score(truth: GroundTruth, found: Found, num_classes: int, backend: Backend) -> Curves:
    """Match detections with objects and measure precision and recall of each class.

    COCO's measure treats every class alone, so the classes are scored in blocks of bounded memory; a class
    without objects counts nowhere and is left at -1.
    """
    precision = np.full((10, 101, num_classes, 4), -1.0)
    recall = np.full((10, num_classes, 4, 3), -1.0)
    for block in _blocks(truth, found, num_classes):
        objects = truth.rows(np.isin(truth.labels, block))
        curves = MEASURES[backend](objects, found.rows(np.isin(found.labels, block)), block)
        precision[:, :, block], recall[:, block] = curves.precision, curves.recall
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
