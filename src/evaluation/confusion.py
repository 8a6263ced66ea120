"""Which class is taken for which, what is missed, and what is found where nothing is.

Legend: C classes.
"""

import numpy as np
from numpy.typing import NDArray

from .matching import IOU_THRESHOLDS, box_ious, pair_blocks
from .scored import Assigned


def confusion_matrix(assigned: Assigned, threshold: float) -> NDArray[np.int64]:
    """Objects and detections by true and by predicted class.

    Detections of at least `threshold` are taken. First each has the object of its own class that the
    evaluation gives it (the diagonal is so what counts as right at IoU 0.50). Then the detections and objects
    that are left, whatever their class, are paired one to one from an IoU of 0.50 on, the highest IoU
    first. Crowd regions count nowhere.

    Returns:
        [C + 1, C + 1], a row for each true class and a column for each predicted one. The last row counts
        detections that have no object, the last column objects that no detection has.
    """
    truth, found = assigned.truth, assigned.found
    kept = found.scores >= threshold
    matrix = np.zeros((assigned.num_classes + 1,) * 2, np.int64)
    right = found.labels[kept & assigned.hits]
    np.add.at(matrix, (right, right), 1)

    free = ~truth.crowd
    free[assigned.objects[kept & assigned.hits]] = False
    left = kept & ~assigned.hits
    for detection, own in _pair(assigned, np.flatnonzero(left), np.flatnonzero(free)):
        matrix[truth.labels[own], found.labels[detection]] += 1
        left[detection] = free[own] = False
    np.add.at(matrix[-1], found.labels[left], 1)
    np.add.at(matrix[:, -1], truth.labels[free], 1)
    return matrix


def most_confused(matrix: NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """(true class, predicted class, how often), most often first; background is no class here."""
    between = matrix[:-1, :-1] * ~np.eye(len(matrix) - 1, dtype=np.bool_)
    order = np.argsort(-between, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, between.shape)
    pairs = zip(rows.tolist(), columns.tolist(), between[rows, columns].tolist(), strict=True)
    return [pair for pair in pairs if pair[2]]


def _pair(
    assigned: Assigned, detections: NDArray[np.int64], objects: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Rows of these detections and objects of one picture, one to one, the highest IoU first."""
    truth, found = assigned.truth, assigned.found
    objects = objects[np.argsort(truth.image_index[objects], kind="stable")]
    near: list[tuple[float, int, int]] = []
    for left, right in pair_blocks(truth.image_index[objects], found.image_index[detections]):
        pairs = detections[left], objects[right]
        ious = box_ious(found.boxes_xywh_px[pairs[0]], truth.boxes_xywh_px[pairs[1]], truth.crowd[pairs[1]])
        enough = ious >= IOU_THRESHOLDS[0]
        columns = (-ious[enough], pairs[0][enough], pairs[1][enough])
        near += zip(*(column.tolist() for column in columns), strict=True)
    taken: tuple[set[int], set[int]] = (set(), set())
    chosen = []
    for _, detection, own in sorted(near):  # of equal IoUs the better score first
        if detection not in taken[0] and own not in taken[1]:
            chosen.append((detection, own))
            taken[0].add(detection)
            taken[1].add(own)
    return chosen
