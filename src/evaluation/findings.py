"""What a report states beyond the evaluation's own numbers, worked out once for pictures and page."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .confusion import confusion_matrix
from .errors import Costs, ErrorSplit, error_costs, split_errors
from .scored import Assigned, ClassCounts, Scored, assign_objects, best_threshold, class_counts


class Findings(NamedTuple):
    """What a report says of one evaluation.

    Attributes:
        scored: The evaluation.
        assigned: Which object each detection has.
        threshold: The score from which on detections are drawn and counted.
        counts: What is right, wrong and missed from that score on.
        matrix: [C + 1, C + 1] the confusion matrix from that score on.
        split: The errors by kind.
        costs: What each kind costs.
    """

    scored: Scored
    assigned: Assigned
    threshold: float
    counts: ClassCounts
    matrix: NDArray[np.int64]
    split: ErrorSplit
    costs: Costs


def work_out(scored: Scored) -> Findings:
    """Everything that the report states beyond the evaluation's own numbers."""
    assigned = assign_objects(scored)
    threshold = best_threshold(assigned)
    split = split_errors(assigned)
    return Findings(
        scored,
        assigned,
        threshold,
        class_counts(assigned, threshold),
        confusion_matrix(assigned, threshold),
        split,
        error_costs(assigned, split),
    )
