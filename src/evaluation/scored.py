"""What an evaluation scored, and which object each detection has.

Legend: G objects, D detections, C classes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..structures import ClassNames, GroundTruth
from .matching import Curves, Found, Rows, assign
from .metrics import CocoMetrics

DEFAULT_THRESHOLD = 0.5  # where no detection is right


class Scored(NamedTuple):
    """The material of one evaluation.

    Attributes:
        truth: All objects.
        found: All detections.
        curves: What was measured.
        metrics: The numbers drawn from that.
        classes: The classes that labels count.
    """

    truth: GroundTruth
    found: Found
    curves: Curves
    metrics: CocoMetrics
    classes: ClassNames


class Assigned(NamedTuple):
    """Which object each detection has at IoU 0.50, by the evaluator's own matching.

    Attributes:
        truth: G objects, those of the evaluation in another order.
        found: The D detections that count, best first.
        objects: [D] the row of the object that a detection has, -1 for none.
        num_classes: C.
    """

    truth: GroundTruth
    found: Found
    objects: Rows
    num_classes: int

    @property
    def hits(self) -> NDArray[np.bool_]:
        """[D] detections that have an object."""
        return self.objects >= 0


class ClassCounts(NamedTuple):
    """Detections and objects of each class above a score; all [C] int64.

    Attributes:
        right: Detections that have an object.
        wrong: Detections that have none.
        missed: Objects that no detection has.
    """

    right: NDArray[np.int64]
    wrong: NDArray[np.int64]
    missed: NDArray[np.int64]


def assign_objects(scored: Scored) -> Assigned:
    """The evaluation's detections with their objects."""
    return Assigned(*assign(scored.truth, scored.found), len(scored.classes.names))


def f1_by_score(assigned: Assigned) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of all classes together if only detections of at least a score are kept.

    Returns:
        [S] the different scores, descending, and [3, S].
    """
    scores = assigned.found.scores
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # equal scores stand and fall together
    right = np.cumsum(assigned.hits)[last]
    num_objects = int((~assigned.truth.crowd).sum())
    precision = right / (last + 1)
    recall = right / max(num_objects, 1)
    f1 = 2 * right / (last + 1 + num_objects)
    return scores[last], np.stack((precision, recall, f1))


def best_threshold(assigned: Assigned) -> float:
    """The score from which on F1 of all classes together is highest; 0.5 where no detection is right."""
    scores, (_, _, f1) = f1_by_score(assigned)
    return float(scores[f1.argmax()]) if f1.size and f1.max() > 0 else DEFAULT_THRESHOLD


def class_counts(assigned: Assigned, threshold: float) -> ClassCounts:
    """What is right, wrong and missed if detections of at least `threshold` are kept."""
    kept = assigned.found.scores >= threshold
    labels, hits = assigned.found.labels[kept], assigned.hits[kept]
    right = np.bincount(labels[hits], minlength=assigned.num_classes)
    wrong = np.bincount(labels[~hits], minlength=assigned.num_classes)
    return ClassCounts(right, wrong, assigned.truth.num_objects(assigned.num_classes) - right)
