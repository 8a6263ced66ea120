import pytest
import torch

from src.deploy.agreement import FLOAT32, Tolerance, compare, measure
from src.structures import Detections


def detections() -> Detections:
    """Two pictures with three detections each."""
    labels = torch.tensor([[0, 1, 2], [2, 2, 0]])
    boxes = torch.arange(24.0).reshape(2, 3, 4) * 10
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.8, 0.7, 0.2]])
    return Detections(labels, boxes, scores)


def reordered(order: list[int]) -> Detections:
    return Detections(*(part[:, order] for part in detections()))


def test_order_does_not_matter() -> None:
    agreement = compare(detections(), reordered([2, 0, 1]))
    assert agreement == (2, 6, 0, 0.0, 0.0, 0)
    assert agreement.share == 1


def test_differences_within_tolerance_are_told() -> None:
    other = detections()
    other.scores[0, 1] += 6e-5
    other.boxes_xyxy_px[1, 0, 2] -= 0.03
    agreement = compare(detections(), other)
    assert agreement.max_score_diff == pytest.approx(6e-5, rel=0.01)
    assert agreement.max_box_diff_px == pytest.approx(0.03, rel=0.01)


@pytest.mark.parametrize(
    ("field", "by", "message"),
    [
        ("scores", -2e-4, "1 of 3 detections differ, by up to 0.0002 in score"),
        ("boxes_xyxy_px", 0.06, "and 0.06 px"),
        ("labels", 1, "or in their labels"),
    ],
)
def test_differences_out_of_tolerance_are_refused(field: str, by: float, message: str) -> None:
    other = detections()
    getattr(other, field)[0, 0] += by
    with pytest.raises(ValueError, match="picture 0: .*" + message):
        compare(detections(), other)


def test_a_share_may_differ_by_more() -> None:
    other = detections()
    other.scores[0, 0] -= 0.5
    assert compare(detections(), other, FLOAT32._replace(share=0.8)).num_apart == 1
    with pytest.raises(ValueError, match="picture 0: 1 of 3 detections differ"):
        compare(detections(), other, FLOAT32._replace(share=0.9))


def test_a_detection_may_not_stand_for_two() -> None:
    other = reordered([0, 0, 2])
    with pytest.raises(ValueError, match="1 of 3 detections differ"):
        compare(detections(), other)


def test_the_last_one_kept_may_be_another_of_the_same_score() -> None:
    reference = Detections(*(torch.cat((part,) * 4, 1)[:, :11] for part in detections()))
    reference = reference._replace(scores=torch.linspace(0.9, 0.1, 11).repeat(2, 1))
    other = reference._replace(labels=reference.labels.clone())
    other.labels[0, -1] += 1
    assert compare(reference, other).num_ties == 1
    other.labels[0, -2] += 1
    with pytest.raises(ValueError, match="2 of 11"):
        compare(reference, other)


def test_scores_that_are_all_the_same_compare_nothing() -> None:
    reference = detections()._replace(scores=torch.full((2, 3), 0.01))
    other = reference._replace(boxes_xyxy_px=reference.boxes_xyxy_px + 5)
    with pytest.raises(ValueError, match="6 of 6 detections are ties"):
        compare(reference, other)


@pytest.mark.parametrize("field", ["scores", "boxes_xyxy_px"])
def test_values_that_are_not_finite_are_refused(field: str) -> None:
    other = detections()
    getattr(other, field)[1, 2] = float("nan")
    with pytest.raises(ValueError, match="picture 1: .*not a finite number"):
        compare(detections(), other)


def test_another_number_of_detections_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) scores came, \(2, 3\)"):
        compare(detections(), reordered([0, 1]))


def test_what_is_apart_is_measured_with_what_is_nearest_to_it() -> None:
    reference = detections()
    other = Detections(*(part.clone() for part in reordered([2, 0, 1])))
    other.boxes_xyxy_px[0, 1, 0] += 3  # of the score 0.9
    other.scores[1, 2] += 0.05  # of the score 0.7
    other.labels[1, 1] = 1  # 0.8
    measured = measure(reference, other)
    assert (measured.num_compared, measured.num_ties, measured.num_apart) == (3, 0, 3)
    assert measured.share == 0.5
    assert measured.max_score_diff == pytest.approx(0.05, rel=1e-4)
    assert measured.max_box_diff_px == pytest.approx(3)
    wide = measure(reference, other, Tolerance(score=0.06, box_px=4, ap=0))
    assert (wide.num_compared, wide.num_apart) == (5, 1)


def test_detections_below_the_floor_are_left_alone() -> None:
    reference, other = detections(), detections()
    other.boxes_xyxy_px[0, 1] += 50  # of the score 0.5
    with pytest.raises(ValueError, match="1 of 3"):
        compare(reference, other)
    agreement = compare(reference, other, FLOAT32._replace(floor=0.6))
    assert (agreement.num_compared, agreement.max_box_diff_px) == (3, 0)
    assert compare(reference, other, FLOAT32._replace(floor=0.95)).share == 1
