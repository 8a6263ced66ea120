"""Why detections are wrong, and what each kind of error costs.

The kinds and their costs are those of TIDE: D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox
for Identifying Object Detection Errors", ECCV 2020, sections 2.2 and 2.3 (arXiv 2008.08115).

Legend: G objects, D detections, C classes, E kinds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .matching import IOU_THRESHOLDS, Bools, Floats, Rows, box_ious, pair_blocks, precision_at_recalls
from .scored import Assigned

FOREGROUND_IOU = float(IOU_THRESHOLDS[0])
BACKGROUND_IOU = 0.1

KINDS = {
    "classification": "a good box around an object, with the wrong class",
    "localisation": "the right class, with a box that fits the object badly",
    "both": "the wrong class and a badly fitting box",
    "duplicate": "an object that a better-scored detection already has",
    "background": "nothing of any class is there",
    "missed": "an object that no detection explains",
}
"""What a kind of error means, in TIDE's order."""

CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)


class Nearest(NamedTuple):
    """What lies nearest to each detection; IoU 0 and row -1 where nothing does.

    Attributes:
        own_iou: [D] highest IoU with an object of the detection's class.
        own: [D] that object's row.
        other_iou: [D] highest IoU with an object of another class.
        other: [D] that object's row.
    """

    own_iou: Floats
    own: Rows
    other_iou: Floats
    other: Rows


class ErrorSplit(NamedTuple):
    """Every wrong detection and every missed object by kind.

    Attributes:
        kinds: [D] index into `KINDS`, -1 for a detection that is right.
        near: [D] the object that the error is about: of another class for a classification error and for
            "both", of the same class for a localisation error and a duplicate; -1 for background and for
            what is right.
        mends: [D] whether the detection would be right without its error: its object is free, and no better
            detection would have it then.
        missed: [G] objects that neither a detection nor such a mended one has.
    """

    kinds: Rows
    near: Rows
    mends: Bools
    missed: Bools


class Costs(NamedTuple):
    """Points of AP50, in [0, 1], that the result would gain without each kind of error.

    Attributes:
        AP50: What is reached now: the evaluator's number.
        kinds: By name, each kind taken away alone; they do not add up to what is missing.
        false_positives: If every wrong detection had a score below all right ones.
        false_negatives: If only the objects that are found had been there.
    """

    AP50: float
    kinds: dict[str, float]
    false_positives: float
    false_negatives: float


def split_errors(assigned: Assigned) -> ErrorSplit:
    """Give every wrong detection the first of TIDE's kinds that it fits, and say which objects are missed."""
    nearest = _nearest(assigned)
    own_iou, own, other_iou, other = nearest
    fits = [
        (LOCALISATION, (own_iou >= BACKGROUND_IOU) & (own_iou < FOREGROUND_IOU), own),
        (CLASSIFICATION, other_iou >= FOREGROUND_IOU, other),
        (DUPLICATE, own_iou >= FOREGROUND_IOU, own),
        (BACKGROUND, np.maximum(own_iou, other_iou) <= BACKGROUND_IOU, np.full_like(own, -1)),
    ]
    kinds = np.where(assigned.hits, -1, BOTH)
    near = np.where(assigned.hits, -1, other)
    undecided = ~assigned.hits
    for kind, fitting, objects in fits:
        chosen = undecided & fitting
        kinds[chosen], near[chosen] = kind, objects[chosen]
        undecided &= ~chosen

    taken = np.zeros(len(assigned.truth.labels), np.bool_)
    taken[assigned.objects[assigned.hits]] = True
    mendable = np.flatnonzero(np.isin(kinds, (CLASSIFICATION, LOCALISATION)))
    mendable = mendable[~taken[near[mendable]]]
    first = mendable[np.unique(near[mendable], return_index=True)[1]]  # detections stand best first
    mends = np.zeros(len(kinds), np.bool_)
    mends[first] = True
    explained = taken.copy()
    explained[near[first]] = True
    return ErrorSplit(kinds, near, mends, ~explained & ~assigned.truth.crowd)


def error_costs(assigned: Assigned, split: ErrorSplit) -> Costs:
    """What each kind costs: AP50 with that kind's errors put right, less AP50 as it is.

    TIDE puts a classification or localisation error right by making the detection a hit, or by taking it away
    where its object has a better one; other wrong detections are taken away, and missed objects are no longer
    asked for. A class without objects counts nowhere, as in COCO's measure; TIDE's program counts it as 0.
    """
    truth, hits, labels = assigned.truth, assigned.hits, assigned.found.labels
    num_objects = truth.num_objects(assigned.num_classes)
    missed = np.bincount(truth.labels[split.missed], minlength=assigned.num_classes)
    present = np.flatnonzero(num_objects)

    def measure(labels: Rows, hits: Bools, kept: Bools, asked: NDArray[np.int64]) -> float | None:
        values = [_ap50(hits[kept & (labels == c)], int(asked[c])) for c in present]
        measured = [value for value in values if value is not None]
        return float(np.mean(measured)) if measured else None

    everything = np.ones(len(hits), np.bool_)
    now = measure(labels, hits, everything, num_objects)

    def gain(labels: Rows, hits: Bools, kept: Bools, asked: NDArray[np.int64]) -> float:
        then = measure(labels, hits, kept, asked)
        return 0.0 if now is None or then is None else round(then - now, 12) + 0.0  # no -0.0

    costs = {}
    for kind, name in enumerate(list(KINDS)[:-1]):
        mended = (split.kinds == kind) & split.mends
        kept = (split.kinds != kind) | mended
        true_labels = labels.copy()
        true_labels[mended] = truth.labels[split.near[mended]]
        costs[name] = gain(true_labels, hits | mended, kept, num_objects)
    costs["missed"] = gain(labels, hits, everything, num_objects - missed)
    found = np.bincount(labels[hits], minlength=assigned.num_classes)
    return Costs(
        -1.0 if now is None else now,
        costs,
        gain(labels, hits, hits, num_objects),
        gain(labels, hits, everything, found),
    )


def _ap50(hits: Bools, num_objects: int) -> float | None:
    """AP of a class's detections, best first; None where there is nothing to find and nothing found."""
    if num_objects == 0:
        return 0.0 if len(hits) else None
    counts = np.ones((1, len(hits)), np.bool_)
    return float(precision_at_recalls(hits[None], counts, num_objects).mean())


def _nearest(assigned: Assigned) -> Nearest:
    """The nearest objects of the same and of other classes; of equal overlaps the first. No crowd regions."""
    truth, found = assigned.truth, assigned.found
    real = np.flatnonzero(~truth.crowd)
    real = real[np.argsort(truth.image_index[real], kind="stable")]
    ious = np.zeros((2, len(found.labels)))
    rows = np.full((2, len(found.labels)), -1)
    for detections, positions in pair_blocks(truth.image_index[real], found.image_index):
        objects = real[positions]
        overlap = box_ious(
            found.boxes_xywh_px[detections], truth.boxes_xywh_px[objects], truth.crowd[objects]
        )
        same = found.labels[detections] == truth.labels[objects]
        for side, chosen in enumerate((same & (overlap > 0), ~same & (overlap > 0))):
            order = np.flatnonzero(chosen)
            order = order[np.lexsort((objects[order], -overlap[order], detections[order]))]
            own, first = np.unique(detections[order], return_index=True)
            ious[side, own], rows[side, own] = overlap[order[first]], objects[order[first]]
    return Nearest(ious[0], rows[0], ious[1], rows[1])
