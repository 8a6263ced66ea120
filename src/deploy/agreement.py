"""How far two sets of detections of the same pictures are apart, and how far they may be.

Legend: N pictures, K detections of a picture.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..structures import Detections

MAX_TIES = 0.1


class Tolerance(NamedTuple):
    """How far what a file finds may be from what PyTorch finds.

    Attributes:
        score: Difference of two scores.
        box_px: Difference of a box side, in pixels.
        ap: Difference of the AP, in [0, 1].
        floor: Two detections of lower scores than this are not compared.
        share: Part of the detections that must be within these differences.
    """

    score: float
    box_px: float
    ap: float
    floor: float = 0.0
    share: float = 1.0


FLOAT32 = Tolerance(1e-4, 0.05, 1e-3)
"""For the same numbers in another order, in pictures of about `samples.PICTURE_SIDE` pixels."""

HALF = Tolerance(0.02, 2.0, 5e-3, floor=0.3, share=0.9)
"""For float16. Queries of near equal score are chosen otherwise, so that single detections differ by more."""


class Agreement(NamedTuple):
    """How far two sets of detections of the same pictures are apart.

    Attributes:
        batch: Pictures compared.
        num_compared: Pairs of detections within tolerance.
        num_ties: Pairs that are not, but whose scores lie within tolerance of the lowest score kept: which of
            such detections are kept is an accident of rounding.
        max_score_diff: Largest difference of scores over all other pairs of one label.
        max_box_diff_px: Largest difference of a box side over them, in pixels.
        num_apart: Pairs that are not within tolerance and no ties.
    """

    batch: int
    num_compared: int
    num_ties: int
    max_score_diff: float
    max_box_diff_px: float
    num_apart: int = 0

    @property
    def share(self) -> float:
        """Part of the detections, ties left out, that agree; 1 where there are none."""
        total = self.num_compared + self.num_apart
        return self.num_compared / total if total else 1.0


class _Pairs(NamedTuple):
    """The detections of one picture, each beside that of the other side which is nearest to it.

    Attributes:
        score_diff: [K].
        box_diff: [K] largest difference of a side, in pixels.
        within: [K] whether it is within tolerance, the label being the same.
        is_tie: [K] whether it is not, at the lowest score kept.
        same_label: [K].
    """

    score_diff: NDArray[np.float64]
    box_diff: NDArray[np.float64]
    within: NDArray[np.bool_]
    is_tie: NDArray[np.bool_]
    same_label: NDArray[np.bool_]


def measure(reference: Detections, other: Detections, tolerance: Tolerance = FLOAT32) -> Agreement:
    """How far detections are apart as sets: rounding may swap the order of near equal scores.

    Raises:
        ValueError: They are of other numbers, or hold values that are not finite.
    """
    return _summary(_all_pairs(reference, other, tolerance))


def compare(reference: Detections, other: Detections, tolerance: Tolerance = FLOAT32) -> Agreement:
    """As `measure`, where they must agree.

    Raises:
        ValueError: As there; they differ by more than the tolerance, or are ties for the most part.
    """
    pictures = _all_pairs(reference, other, tolerance)
    agreement = _summary(pictures)
    for index, pairs in enumerate(pictures):
        wrong = ~pairs.within & ~pairs.is_tie
        if wrong.any() and agreement.share < tolerance.share:
            raise ValueError(
                f"picture {index}: {int(wrong.sum())} of {len(wrong)} detections differ, by up to "
                f"{pairs.score_diff[wrong].max():.3g} in score (allowed {tolerance.score:g}) and "
                f"{pairs.box_diff[wrong].max():.3g} px (allowed {tolerance.box_px:g}), or in their labels"
            )
    if agreement.num_ties > MAX_TIES * reference.scores.numel():
        raise ValueError(
            f"{agreement.num_ties} of {reference.scores.numel()} detections are ties at the lowest score "
            "kept, too many to compare the rest; compare with trained weights"
        )
    return agreement


def _summary(pictures: list[_Pairs]) -> Agreement:
    pairs = _Pairs(*(np.concatenate(parts) for parts in zip(*pictures, strict=True)))
    told = pairs.same_label & ~pairs.is_tie
    return Agreement(
        len(pictures),
        int(pairs.within.sum()),
        int(pairs.is_tie.sum()),
        float(pairs.score_diff[told].max(initial=0)),
        float(pairs.box_diff[told].max(initial=0)),
        int((~pairs.within & ~pairs.is_tie).sum()),
    )


_Rows = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _all_pairs(reference: Detections, other: Detections, tolerance: Tolerance) -> list[_Pairs]:
    if reference.scores.shape != other.scores.shape:
        raise ValueError(
            f"{tuple(other.scores.shape)} scores came, {tuple(reference.scores.shape)} were expected"
        )
    return [
        _pairs(_numpy(reference, index), _numpy(other, index), tolerance)
        for index in range(len(reference.scores))
    ]


def _numpy(detections: Detections, index: int) -> _Rows:
    """Labels [K], boxes [K, 4] and scores [K] of one picture."""
    rows = [part[index].double().cpu().numpy() for part in (detections.boxes_xyxy_px, detections.scores)]
    if not all(np.isfinite(part).all() for part in rows):
        raise ValueError(f"picture {index}: a score or a box is not a finite number")
    return detections.labels[index].cpu().numpy(), rows[0], rows[1]


def _pairs(reference: _Rows, other: _Rows, tolerance: Tolerance) -> _Pairs:
    """Pair the detections of one picture."""
    score_diff = np.abs(reference[2][:, None] - other[2][None])
    box_diff = np.abs(reference[1][:, None] - other[1][None]).max(-1)
    excess = np.maximum(score_diff / tolerance.score, box_diff / tolerance.box_px)
    excess = np.where(reference[0][:, None] == other[0][None], excess, np.inf)
    # Any pair within tolerance is worth more than all that are not: 2 K > the sum of what K good pairs cost.
    # Of the others the nearest are paired.
    cost = np.where(excess <= 1, excess, 2.0 * len(excess) - 1 / np.maximum(excess, 1))
    rows, columns = linear_sum_assignment(cost)
    excess = excess[rows, columns]
    scores = np.stack((reference[2][rows], other[2][columns]))
    lowest = max(reference[2].min(), other[2].min()) + tolerance.score
    is_tie = (excess > 1) & (scores <= lowest).all(0)
    told = (scores >= tolerance.floor).any(0)
    return _Pairs(
        score_diff[rows, columns][told],
        box_diff[rows, columns][told],
        (excess <= 1)[told],
        is_tie[told],
        np.isfinite(excess)[told],
    )
