"""COCO's measure on packed arrays: what pycocotools computes, to the last bit, without its loops.

Legend: D detections, G objects, P pairs of a detection and an object, C classes, T IoU thresholds,
R recall thresholds, A area ranges, M detection limits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..structures import GroundTruth

PAIRS_AT_ONCE = 1_000_000
"""Detections and objects of a class that are compared in one go, at about 140 bytes a pair."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)
AREAS_PX2 = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""[A, 2] least and most of all, small, medium and large; a bound belongs to both its neighbours."""

LIMITS = (1, 10, 100)
"""Best detections of a picture and class that count."""

Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Found(NamedTuple):
    """All detections of a dataset, best or not; equal scores keep their order within a picture.

    Attributes:
        image_index: [D] int64, row of the ground truth's `image_ids`.
        labels: [D] int64.
        boxes_xywh_px: [D, 4] float64.
        scores: [D] float64.
    """

    image_index: Rows
    labels: Rows
    boxes_xywh_px: Floats
    scores: Floats

    def rows(self, chosen: Rows | Bools) -> "Found":
        """These detections."""
        return Found(
            self.image_index[chosen], self.labels[chosen], self.boxes_xywh_px[chosen], self.scores[chosen]
        )


class Curves(NamedTuple):
    """Precision and recall of each class; -1 where a class has no object of that area.

    Attributes:
        precision: [T, R, C, A], with at most 100 detections a picture and class.
        recall: [T, C, A, M].
    """

    precision: Floats
    recall: Floats


class _Pairs(NamedTuple):
    """Detections and objects of one picture and class that overlap enough to match at all.

    Attributes:
        turns: [P] how many detections of the same picture and class with such pairs go before; ascending.
        detections: [P] rows, together for each detection.
        objects: [P] rows; of a detection's objects the better come later.
        ious: [P].
    """

    turns: Rows
    detections: Rows
    objects: Rows
    ious: Floats


def array_curves(truth: GroundTruth, found: Found, classes: list[int]) -> Curves:
    """Match these classes' detections with their objects and measure.

    Args:
        truth: Objects of `classes` alone.
        found: Detections of `classes` alone.
        classes: C labels.
    """
    truth, truth_group, found, group, rank = _best_first(truth, found)
    counted = _in_area(truth.areas) & ~truth.crowd
    taken, excused = _match(truth, truth_group, found, group, counted, IOU_THRESHOLDS)
    matched = taken >= 0

    precision = np.full((len(IOU_THRESHOLDS), len(RECALL_THRESHOLDS), len(classes), len(AREAS_PX2)), -1.0)
    recall = np.full((len(IOU_THRESHOLDS), len(classes), len(AREAS_PX2), len(LIMITS)), -1.0)
    for column, label in enumerate(classes):
        rows = slice(*np.searchsorted(found.labels, [label, label + 1]))
        order = np.argsort(-found.scores[rows], kind="stable")
        num_objects = counted[:, truth.labels == label].sum(1)
        for area in np.flatnonzero(num_objects):
            counts = ~excused[area, :, rows]
            hits = matched[area, :, rows] & counts
            precision[:, :, column, area] = precision_at_recalls(
                hits[:, order], counts[:, order], num_objects[area]
            )
            for m, limit in enumerate(LIMITS):
                recall[:, column, area, m] = hits[:, rank[rows] < limit].sum(1) / num_objects[area]
    return Curves(precision, recall)


def assign(truth: GroundTruth, found: Found) -> tuple[GroundTruth, Found, Rows]:
    """Which object each detection has at the least IoU threshold, by the matching of `array_curves`.

    Returns:
        The objects in another order; the D detections that count (at most 100 a picture and class, none that
        a crowd region excuses), best first; and [D] the row of the object that each has, -1 for none.
    """
    truth, truth_group, found, group, _ = _best_first(truth, found)
    counted = _in_area(truth.areas)[:1] & ~truth.crowd
    taken, excused = _match(truth, truth_group, found, group, counted, IOU_THRESHOLDS[:1])
    order = np.argsort(-found.scores, kind="stable")
    order = order[~excused[0, 0, order]]
    return truth, found.rows(order), taken[0, 0, order]


def _best_first(truth: GroundTruth, found: Found) -> tuple[GroundTruth, Rows, Found, Rows, Rows]:
    """Objects by ascending group (a picture and class), and the best 100 detections of each group.

    Returns:
        The objects; [G] their groups; the detections by group, best first; [D] their groups; and [D] their
        rank in the group, from 0.
    """
    num_images = len(truth.image_ids)
    truth_group = truth.labels * num_images + truth.image_index
    order = np.argsort(truth_group, kind="stable")
    truth, truth_group = truth.rows(order), truth_group[order]
    group = found.labels * num_images + found.image_index
    order = np.lexsort((-found.scores, group))  # stable: as pycocotools' mergesort
    group = group[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group)
    best = rank < LIMITS[-1]
    return truth, truth_group, found.rows(order[best]), group[best], rank[best]


def _in_area(areas: Floats) -> Bools:
    """[A, N] whether each of N areas lies in each range."""
    return (areas >= AREAS_PX2[:, :1]) & (areas <= AREAS_PX2[:, 1:])


def _pairs(truth: GroundTruth, truth_group: Rows, found: Found, group: Rows) -> _Pairs:
    """All pairs within a group (a picture and class) that reach the least threshold.

    Args:
        truth: G objects by ascending group.
        truth_group: [G].
        found: D detections by ascending group, the best of a group first.
        group: [D].
    """
    kept = []
    for detections, objects in pair_blocks(truth_group, group):
        ious = box_ious(found.boxes_xywh_px[detections], truth.boxes_xywh_px[objects], truth.crowd[objects])
        near = ious >= IOU_THRESHOLDS[0]
        kept.append((detections[near], objects[near], ious[near]))
    detections, objects, ious = (np.concatenate(part) for part in zip(*kept, strict=True))

    own, at = np.unique(detections, return_inverse=True)
    turns = (np.arange(len(own)) - np.searchsorted(group[own], group[own]))[at]
    order = np.lexsort((objects, ious, detections, turns))
    return _Pairs(turns[order], detections[order], objects[order], ious[order])


def pair_blocks(truth_group: Rows, group: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Rows of all detections and objects that share a group, in blocks: few of tens of millions overlap.

    Args:
        truth_group: [G], ascending.
        group: [D] in any order; the pairs of one detection follow each other.
    """
    first, last = np.searchsorted(truth_group, group, "left"), np.searchsorted(truth_group, group, "right")
    count = last - first
    before = np.cumsum(count) - count
    for block in np.split(np.arange(len(group)), np.flatnonzero(np.diff(before // PAIRS_AT_ONCE)) + 1):
        detections = np.repeat(block, count[block])
        within = np.arange(len(detections)) - np.repeat(before[block] - before[block[:1]], count[block])
        yield detections, within + np.repeat(first[block], count[block])


def box_ious(found_xywh: Floats, truth_xywh: Floats, crowd: Bools) -> Floats:
    """[P] overlap over union, or over the detection's own area where the object is a crowd region."""
    sides = np.minimum(found_xywh[:, :2] + found_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:])
    sides = (sides - np.maximum(found_xywh[:, :2], truth_xywh[:, :2])).clip(0)
    overlap = sides[:, 0] * sides[:, 1]
    own, other = found_xywh[:, 2] * found_xywh[:, 3], truth_xywh[:, 2] * truth_xywh[:, 3]
    whole = np.where(crowd, own, own + other - overlap)
    ious: Floats = np.divide(overlap, whole, out=np.zeros_like(overlap), where=overlap > 0)
    return ious


def _match(
    truth: GroundTruth, truth_group: Rows, found: Found, group: Rows, counted: Bools, thresholds: Floats
) -> tuple[Rows, Bools]:
    """Give every detection, best first, the free object that it overlaps most.

    An object that counts goes before one that does not (a crowd region, or outside of the area range), which
    only excuses the detection; of equal overlaps the later object is taken. A crowd region is never used up.
    A detection without an object is excused where it lies outside of the area range.

    Args:
        truth: G objects by ascending group.
        truth_group: [G].
        found: D detections by ascending group, the best of a group first.
        group: [D].
        counted: [A, G] objects that are to be found, of the first A area ranges.
        thresholds: [T] IoUs.

    Returns:
        [A, T, D] the row of the object that a detection has, -1 for none; and whether it is excused.
    """
    pairs = _pairs(truth, truth_group, found, group)
    shape = len(counted), len(thresholds)
    outside = ~_in_area(found.boxes_xywh_px[:, 2] * found.boxes_xywh_px[:, 3])[: len(counted), None]
    excused = np.repeat(outside, len(thresholds), 1)
    given = np.full((*shape, len(group)), -1)
    taken = np.zeros((*shape, len(truth.labels)), np.bool_)
    bounds = np.flatnonzero(np.diff(pairs.turns, prepend=-1, append=-1))
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        # one detection of each group: they do not touch each other's objects
        _, detections, objects, ious = (part[start:stop] for part in pairs)
        size = len(objects)
        free = ~taken[:, :, objects] | truth.crowd[objects]
        worth = np.arange(1, size + 1) + size * counted[:, None, objects]
        worth = np.where(free & (ious >= thresholds[:, None]), worth, 0)
        own = np.flatnonzero(np.diff(detections, prepend=-1))
        best = np.maximum.reduceat(worth, own, axis=2)
        area, threshold, at = np.nonzero(best)
        chosen = objects[(best[area, threshold, at] - 1) % size]
        taken[area, threshold, chosen] = True
        given[area, threshold, detections[own[at]]] = chosen
        excused[area, threshold, detections[own[at]]] = ~counted[area, chosen]
    return given, excused


def precision_at_recalls(hits: Bools, counts: Bools, num_objects: int) -> Floats:
    """[T, R] the best precision at each recall or beyond; 0 where that is not reached.

    Args:
        hits: [T, D] detections, best first, that found an object.
        counts: [T, D] detections that are not excused.
        num_objects: Objects to be found.
    """
    found = np.cumsum(hits, 1)
    precision = found / (np.cumsum(counts, 1) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    padded = np.pad(envelope, ((0, 0), (0, 1)))
    recall = found / num_objects
    return np.stack([p[np.searchsorted(r, RECALL_THRESHOLDS)] for p, r in zip(padded, recall, strict=True)])
