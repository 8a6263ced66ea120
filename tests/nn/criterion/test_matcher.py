import itertools

import numpy as np
import pytest
import torch
from criterion_cases import make_targets, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from src.nn.criterion import HungarianMatcher
from src.nn.criterion.matcher import padded_slots
from src.ops.boxes import cxcywh_to_xyxy
from src.structures import Targets


def slow_cost(matcher: HungarianMatcher, logit: float, box: Tensor, true: Tensor) -> float:
    """The cost of one pair, number by number."""
    p = 1 / (1 + np.exp(-logit))
    cost_class = matcher.alpha * (1 - p) ** matcher.gamma * -np.log(p)
    cost_class -= (1 - matcher.alpha) * p**matcher.gamma * -np.log(1 - p)
    a, b = cxcywh_to_xyxy(box).tolist(), cxcywh_to_xyxy(true).tolist()
    inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    giou = inter / union - (hull - union) / hull
    weights = matcher.weight_dict
    distance = (box - true).abs().sum().item()
    return weights["cost_class"] * cost_class + weights["cost_bbox"] * distance - weights["cost_giou"] * giou


def slow_costs(
    matcher: HungarianMatcher, logits: Tensor, boxes: Tensor, targets: Targets, picture: int
) -> np.ndarray:
    start = sum(targets.counts[:picture])
    chosen = range(start, start + targets.counts[picture])
    return np.array(
        [
            [
                slow_cost(
                    matcher,
                    logits[picture, q, targets.labels[t]].item(),
                    boxes[picture, q],
                    targets.boxes_cxcywh[t],
                )
                for q in range(logits.shape[1])
            ]
            for t in chosen
        ]
    ).reshape(len(chosen), logits.shape[1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    queries=st.integers(1, 4),
    outputs=st.integers(1, 2),
)
def test_total_cost_is_the_smallest_of_all_assignments(
    seed: int, counts: list[int], queries: int, outputs: int
) -> None:
    torch.manual_seed(seed)
    matcher, targets = HungarianMatcher(), make_targets(counts)
    logits, boxes = torch.randn(outputs, len(counts), queries, 5), random_boxes(outputs, len(counts), queries)
    matches = matcher(logits, boxes, targets)
    assert matches.rows.shape == matches.objects.shape == (outputs, sum(min(n, queries) for n in counts))
    for output, (picture, count) in itertools.product(range(outputs), enumerate(counts)):
        costs = slow_costs(matcher, logits[output], boxes[output], targets, picture)
        start = sum(counts[:picture])
        mine = matches.rows[output] // queries == picture
        found = [
            (t - start, r % queries)
            for r, t in zip(matches.rows[output][mine], matches.objects[output][mine], strict=True)
        ]
        size = min(count, queries)
        assert len({t for t, _ in found}) == len({q for _, q in found}) == len(found) == size
        best = min(
            sum(costs[t, q] for t, q in zip(some, order, strict=True))
            for some in itertools.combinations(range(count), size)
            for order in itertools.permutations(range(queries), size)
        )
        assert sum(costs[t, q] for t, q in found) == pytest.approx(best, rel=1e-4, abs=1e-4)


def plain_costs(logits: Tensor, boxes: Tensor, labels: Tensor, true: Tensor) -> np.ndarray:
    """One picture's costs [objects, queries] by the textbook's formulas, in float64."""
    p, matcher = logits[:, labels].double().sigmoid(), HungarianMatcher()
    a, b = cxcywh_to_xyxy(boxes.double())[:, None], cxcywh_to_xyxy(true.double())[None]
    inter = (torch.minimum(a, b)[..., 2:] - torch.maximum(a, b)[..., :2]).clamp(min=0).prod(-1)
    hull = (torch.maximum(a, b)[..., 2:] - torch.minimum(a, b)[..., :2]).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    giou = inter / union - (hull - union) / hull
    alpha, gamma = matcher.alpha, matcher.gamma
    by_class = -alpha * (1 - p) ** gamma * p.log() + (1 - alpha) * p**gamma * (1 - p).log()
    costs = 2 * by_class + 5 * torch.cdist(boxes.double(), true.double(), p=1) - 2 * giou
    return costs.T.numpy()


def test_ten_thousand_pictures_are_matched_as_one_by_one() -> None:
    torch.manual_seed(6)
    batch, outputs, queries = 2500, 4, 6
    targets = make_targets(torch.randint(0, 9, (batch,)).tolist())
    logits, boxes = 2 * torch.randn(outputs, batch, queries, 5), random_boxes(outputs, batch, queries)
    matches = HungarianMatcher()(logits, boxes, targets)
    truth = list(
        zip(targets.labels.split(targets.counts), targets.boxes_cxcywh.split(targets.counts), strict=True)
    )
    starts = np.cumsum((0, *targets.counts))
    other = 0
    for output in range(outputs):
        ends = np.cumsum([min(count, queries) for count in targets.counts])
        parts = zip(
            np.split(matches.rows[output], ends), np.split(matches.objects[output], ends), strict=True
        )
        for picture, ((labels, true), (rows, objects)) in enumerate(zip(truth, parts, strict=False)):
            if len(labels):
                costs = plain_costs(logits[output, picture], boxes[output, picture], labels, true)
                best = linear_sum_assignment(costs)
                found = objects - starts[picture], rows - picture * queries
                other += any((x != y).any() for x, y in zip(found, best, strict=True))
                assert costs[found].sum() == pytest.approx(costs[best].sum(), rel=1e-6, abs=1e-5)
    assert other <= 1  # two assignments may cost the same within float32's last digits


def test_costs_are_those_of_a_slow_reference() -> None:
    torch.manual_seed(0)
    matcher = HungarianMatcher(
        weight_dict={"cost_class": 1.5, "cost_bbox": 4.0, "cost_giou": 3.0}, alpha=0.4, gamma=1.5
    )
    targets = make_targets((3, 2))
    logits, boxes = torch.randn(1, 2, 6, 5), random_boxes(1, 2, 6)
    slots = torch.from_numpy(padded_slots(targets.counts))
    costs = matcher.pair_costs(logits, boxes, targets.labels[slots], targets.boxes_cxcywh[slots])
    for picture, count in enumerate(targets.counts):
        expected = slow_costs(matcher, logits[0], boxes[0], targets, picture)
        np.testing.assert_allclose(costs[0, picture, :count], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "knob",
    [
        {"alpha": 0.9},
        {"gamma": 0.0},
        {"weight_dict": {"cost_class": 0.0, "cost_bbox": 5.0, "cost_giou": 2.0}},
        {"weight_dict": {"cost_class": 2.0, "cost_bbox": 0.0, "cost_giou": 2.0}},
        {"weight_dict": {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 0.0}},
    ],
)
def test_every_knob_changes_the_matches(knob: dict[str, float]) -> None:
    torch.manual_seed(1)
    targets = make_targets((8, 8, 8, 8))
    logits, boxes = 3 * torch.randn(4, 4, 30, 5), random_boxes(4, 4, 30)
    plain = HungarianMatcher()(logits, boxes, targets)
    other = HungarianMatcher(**knob)(logits, boxes, targets)
    assert (plain.rows != other.rows).any()


def test_no_object_at_all_and_pictures_without_any() -> None:
    logits, boxes = torch.randn(2, 3, 6, 5), random_boxes(2, 3, 6)
    assert HungarianMatcher()(logits, boxes, make_targets((0, 0, 0))).rows.shape == (2, 0)
    matches = HungarianMatcher()(logits, boxes, make_targets((0, 2, 0)))
    assert (matches.rows // 6 == 1).all() and sorted(matches.objects[0]) == [0, 1]


def test_padding_never_enters_a_match() -> None:
    """The same picture alone and beside one with many objects."""
    torch.manual_seed(2)
    logits, boxes, targets = torch.randn(2, 2, 9, 5), random_boxes(2, 2, 9), make_targets((2, 7))
    both = HungarianMatcher()(logits, boxes, targets)
    alone = HungarianMatcher()(
        logits[:, :1],
        boxes[:, :1],
        Targets(targets.boxes_cxcywh[:2], targets.labels[:2], (2,), (0,), ((1, 1),)),
    )
    np.testing.assert_array_equal(both.rows[:, :2], alone.rows)
    np.testing.assert_array_equal(both.objects[:, :2], alone.objects)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_predictions_that_are_not_finite_are_matched_last(value: float) -> None:
    torch.manual_seed(3)
    logits, boxes, targets = torch.randn(1, 1, 4, 5), random_boxes(1, 1, 4), make_targets((3,))
    boxes[0, 0, 1] = value
    matches = HungarianMatcher()(logits, boxes, targets)
    assert 1 not in matches.rows
    everything = HungarianMatcher()(torch.full_like(logits, value), boxes, targets)
    assert len(set(everything.rows[0])) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_matched_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    logits, boxes, targets = torch.randn(2, 2, 20, 5), random_boxes(2, 2, 20), make_targets((5, 3))
    logits, boxes = logits.to(dtype), boxes.to(dtype)
    half = HungarianMatcher()(logits, boxes, targets)
    np.testing.assert_array_equal(half.rows, HungarianMatcher()(logits.float(), boxes.float(), targets).rows)


def test_large_batches_are_worked_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    logits, boxes, targets = torch.randn(2, 5, 9, 5), random_boxes(2, 5, 9), make_targets((2, 0, 4, 1, 3))
    whole = HungarianMatcher()(logits, boxes, targets)
    monkeypatch.setattr("src.nn.criterion.blocks.CPU_ELEMENTS", 150)
    np.testing.assert_array_equal(HungarianMatcher()(logits, boxes, targets).rows, whole.rows)


@pytest.mark.parametrize(
    ("knob", "word"),
    [
        ({"weight_dict": {"cost_class": 2.0}}, "exactly"),
        ({"weight_dict": {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giu": 2.0}}, "cost_giu"),
        ({"weight_dict": {"cost_class": 0.0, "cost_bbox": 0.0, "cost_giou": 0.0}}, "not all 0"),
        ({"weight_dict": {"cost_class": -1.0, "cost_bbox": 5.0, "cost_giou": 2.0}}, ">= 0"),
        ({"alpha": 1.5}, "alpha"),
        ({"gamma": -1.0}, "gamma"),
    ],
)
def test_wrong_settings_are_named(knob: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        HungarianMatcher(**knob)
