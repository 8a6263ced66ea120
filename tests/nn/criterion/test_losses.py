import math

import pytest
import torch
from torch import Tensor

from src.nn.criterion.losses import (
    distillation_loss,
    fine_grained_loss,
    matchability_aware_loss,
    varifocal_loss,
)
from src.ops.boxes import corner_planes, overlap

OUTS, S, C, N, R = 3, 7, 4, 2, 9


@pytest.fixture(params=[2**20, 16], ids=["whole", "in blocks"], autouse=True)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.nn.criterion.blocks.CPU_ELEMENTS", request.param)


def make_picks() -> tuple[Tensor, Tensor]:
    """Flat positions [OUTS, N] of distinct queries with some class, and IoUs."""
    queries = torch.stack([torch.randperm(S)[:N] for _ in range(OUTS)])
    labels = torch.randint(0, C, (OUTS, N))
    return (torch.arange(OUTS)[:, None] * S + queries) * C + labels, torch.rand(OUTS, N)


def slow_vfl(logits: Tensor, picks: Tensor, ious: Tensor, alpha: float, gamma: float) -> Tensor:
    sums = []
    for output in range(OUTS):
        wanted = dict(zip(picks[output].tolist(), ious[output].tolist(), strict=True))
        total = logits.new_zeros(())
        for query in range(S):
            for label in range(C):
                x = logits[output, query, label]
                p = torch.sigmoid(x)
                target = wanted.get((output * S + query) * C + label)
                weight = alpha * p.detach() ** gamma if target is None else target
                target = target or 0.0
                total = total - weight * (target * torch.log(p) + (1 - target) * torch.log(1 - p))
        sums.append(total)
    return torch.stack(sums)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.3, 1.5)])
def test_vfl_and_its_gradient_equal_a_slow_reference(alpha: float, gamma: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(OUTS, S, C, dtype=torch.float64, requires_grad=True)
    picks, ious = make_picks()
    ious = ious.double()
    fast, slow = (
        varifocal_loss(logits, picks, ious, alpha, gamma),
        slow_vfl(logits, picks, ious, alpha, gamma),
    )
    torch.testing.assert_close(fast, slow)
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (grad_fast,) = torch.autograd.grad(fast @ factors, logits)
    (grad_slow,) = torch.autograd.grad(slow @ factors, logits)
    torch.testing.assert_close(grad_fast, grad_slow)


def slow_mal(logits: Tensor, picks: Tensor, ious: Tensor, gamma: float) -> Tensor:
    """As DEIM writes it: a cross-entropy with the target IoU^gamma and the weights p^gamma or 1."""
    onehot = torch.zeros_like(logits).flatten()
    onehot[picks.flatten()] = 1
    quality = torch.zeros_like(logits).flatten()
    quality[picks.flatten()] = ious.flatten()
    onehot, quality = onehot.view_as(logits), quality.view_as(logits)
    weights = logits.detach().sigmoid() ** gamma * (1 - onehot) + onehot
    terms = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, quality**gamma, weights, reduction="none"
    )
    return terms.sum((1, 2))


@pytest.mark.parametrize("gamma", [1.5, 2.0, 0.5])
def test_mal_and_its_gradient_equal_a_slow_reference(gamma: float) -> None:
    torch.manual_seed(4)
    logits = torch.randn(OUTS, S, C, dtype=torch.float64, requires_grad=True)
    picks, ious = make_picks()
    ious = ious.double()
    ious[0, 0] = 0  # a match without any overlap
    fast, slow = matchability_aware_loss(logits, picks, ious, gamma), slow_mal(logits, picks, ious, gamma)
    torch.testing.assert_close(fast, slow)
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (grad_fast,) = torch.autograd.grad(fast @ factors, logits)
    (grad_slow,) = torch.autograd.grad(slow @ factors, logits)
    torch.testing.assert_close(grad_fast, grad_slow)


def test_mal_by_hand() -> None:
    """A query with p = 1/2 for two classes: the match costs log 2 at any IoU, the other p^gamma log 2."""
    logits, picks = torch.zeros(1, 1, 2), torch.tensor([[1]])
    for iou in (0.1, 0.9):
        loss = matchability_aware_loss(logits, picks, torch.tensor([[iou]]), 1.5)
        assert loss.item() == pytest.approx(math.log(2) * (1 + 0.5**1.5), rel=1e-6)


def test_mal_stays_finite_for_saturated_logits_and_without_matches() -> None:
    picks, ious = make_picks()
    for value in (1e4, -1e4):
        assert matchability_aware_loss(torch.full((OUTS, S, C), value), picks, ious, 1.5).isfinite().all()
    nobody = torch.empty(OUTS, 0, dtype=torch.int64), torch.empty(OUTS, 0)
    assert (matchability_aware_loss(torch.zeros(OUTS, S, C), *nobody, 1.5) > 0).all()


def test_vfl_stays_finite_for_saturated_logits_and_shows_nan() -> None:
    picks, ious = make_picks()
    for value in (1e4, -1e4):
        assert varifocal_loss(torch.full((OUTS, S, C), value), picks, ious, 0.75, 2.0).isfinite().all()
    logits = torch.zeros(OUTS, S, C)
    logits[1, 2, 3] = math.nan
    assert varifocal_loss(logits, picks, ious, 0.75, 2.0).isnan().tolist() == [False, True, False]


def test_fgl_equals_a_slow_reference() -> None:
    torch.manual_seed(1)
    logits, left = torch.randn(OUTS, N, 4, R).double(), torch.randint(0, R - 1, (OUTS, N, 4))
    right_weight, ious = torch.rand(OUTS, N, 4).double(), torch.rand(OUTS, N).double()
    fast = fine_grained_loss(logits, left, 1 - right_weight, right_weight, ious)
    for output in range(OUTS):
        total = 0.0
        for pair in range(N):
            for edge in range(4):
                p = torch.softmax(logits[output, pair, edge], 0)
                bin_, w = int(left[output, pair, edge]), right_weight[output, pair, edge]
                loss = -(1 - w) * torch.log(p[bin_]) - w * torch.log(p[bin_ + 1])
                total += float(ious[output, pair] * loss)
        assert float(fast[output]) == pytest.approx(total, rel=1e-9)


def test_ddf_and_its_gradient_equal_a_slow_reference() -> None:
    torch.manual_seed(2)
    temperature = 3.0
    logits = torch.randn(OUTS, S, 4, R, dtype=torch.float64, requires_grad=True)
    importance = torch.rand(OUTS - 1, S, dtype=torch.float64)
    fast = distillation_loss(logits, importance, temperature)
    slow = []
    for student in range(OUTS - 1):
        total = logits.new_zeros(())
        for query in range(S):
            for edge in range(4):
                t = torch.softmax(logits[-1, query, edge].detach() / temperature, 0)
                s = torch.softmax(logits[student, query, edge] / temperature, 0)
                divergence = sum(t[n] * torch.log(t[n] / s[n]) for n in range(R))
                total = total + importance[student, query] * temperature**2 * divergence
        slow.append(total)
    torch.testing.assert_close(fast, torch.stack(slow))
    factors = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (grad_fast,) = torch.autograd.grad(fast @ factors, logits)
    (grad_slow,) = torch.autograd.grad(torch.stack(slow) @ factors, logits)
    torch.testing.assert_close(grad_fast, grad_slow)
    assert grad_fast[:-1].abs().min() > 0 and grad_fast[-1].abs().max() == 0


def test_ddf_without_students_and_of_equals() -> None:
    alone = torch.randn(1, S, 4, R)
    assert distillation_loss(alone, torch.ones(0, S), 5.0).shape == (0,)
    assert distillation_loss(alone.repeat(3, 1, 1, 1), torch.ones(2, S), 5.0).abs().max() < 1e-5


def test_overlap_has_finite_gradients_for_boxes_without_size() -> None:
    first, second = torch.zeros(3, 4), torch.zeros(3, 4)
    second[1] = 0.5
    first.requires_grad_()
    iou, giou = overlap(corner_planes(first), corner_planes(second))
    (iou.sum() + giou.sum()).backward()
    assert first.grad is not None and first.grad.isfinite().all()
