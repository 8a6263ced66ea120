"""Edge distributions against slow references."""

import pytest
import torch

from src.ops.boxes import cxcywh_to_xyxy
from src.ops.distribution import (
    bin_targets,
    boxes_to_distances,
    distances_to_boxes,
    expected_distances,
    weighting_function,
)


def test_weighting_function_is_the_one_of_the_paper():
    bins = weighting_function(32, 0.5, 4.0)
    step = 3.0 ** (2 / 30)
    slow = (
        [-4.0] + [1 - step**i for i in range(15, 0, -1)] + [0.0] + [step**i - 1 for i in range(1, 16)] + [4.0]
    )
    torch.testing.assert_close(bins, torch.tensor(slow))
    assert bins.shape == (33,)
    assert (bins.diff() > 0).all()
    torch.testing.assert_close(bins, -bins.flip(0))
    assert bins[-2] == pytest.approx(2.0)


def test_reg_scale_and_up_stretch_the_bins():
    assert weighting_function(32, 0.5, 8.0)[-1] == 8.0
    assert weighting_function(32, 0.25, 4.0)[-1] == 2.0
    assert weighting_function(16, 0.5, 4.0).shape == (17,)


@pytest.mark.parametrize("arguments", [(31, 0.5, 4.0), (2, 0.5, 4.0), (32, 0.0, 4.0), (32, 0.5, 0.0)])
def test_bad_bins_are_refused(arguments):
    with pytest.raises(ValueError, match="must"):
        weighting_function(*arguments)


def test_distances_move_each_edge_outwards_in_units_of_the_reference():
    reference = torch.tensor([0.5, 0.4, 0.2, 0.4])
    box = distances_to_boxes(reference, torch.tensor([1.0, 0.0, -1.0, 2.0]), 4.0)
    # left edge 0.4 - 1 * 0.05, top edge stays at 0.2, right edge 0.6 - 0.05, bottom edge 0.6 + 2 * 0.1
    torch.testing.assert_close(cxcywh_to_xyxy(box), torch.tensor([0.35, 0.2, 0.55, 0.8]))


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5)])
def test_distances_and_boxes_are_inverse(shape):
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(*shape, 4, generator=generator) * 0.8 + 0.1
    distances = torch.randn(*shape, 4, generator=generator)
    boxes = cxcywh_to_xyxy(distances_to_boxes(reference, distances, 8.0))
    torch.testing.assert_close(boxes_to_distances(reference, boxes, 8.0), distances, atol=1e-4, rtol=1e-4)


def test_a_reference_without_size_stays_finite():
    distances = boxes_to_distances(
        torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.4, 0.4, 0.6, 0.6]), 4.0
    )
    assert distances.isfinite().all()


def test_bin_targets_against_a_slow_search():
    bins = weighting_function(32, 0.5, 4.0)
    distances = torch.cat((torch.linspace(-6, 6, 97), bins)).reshape(2, -1)
    left, weight_left, weight_right = bin_targets(distances, bins)
    for d, index, w_left, w_right in zip(
        distances.flatten(), left.flatten(), weight_left.flatten(), weight_right.flatten(), strict=True
    ):
        if d < bins[0]:
            expected = (0, 1.0, 0.0)
        elif d >= bins[-1]:
            expected = (31, 0.0, 1.0)
        else:
            slow = max(n for n in range(33) if bins[n] <= d)
            share = float((d - bins[slow]) / (bins[slow + 1] - bins[slow]))
            expected = (slow, 1 - share, share)
        assert index == expected[0]
        assert w_left.item() == pytest.approx(expected[1], abs=1e-6)
        assert w_right.item() == pytest.approx(expected[2], abs=1e-6)
    assert left.dtype == torch.int64


def test_bin_targets_of_nothing():
    left, weight_left, weight_right = bin_targets(torch.zeros(0, 4), weighting_function(32, 0.5, 4.0))
    assert left.shape == weight_left.shape == weight_right.shape == (0, 4)


def test_targets_and_expectation_are_consistent():
    bins = weighting_function(32, 0.5, 4.0)
    distances = torch.tensor([[-3.0, 0.3, 0.0, 1.7]])
    left, weight_left, weight_right = bin_targets(distances, bins)
    probabilities = torch.full((1, 4, 33), 1e-9)
    probabilities.scatter_(-1, left[..., None], weight_left[..., None].clamp(min=1e-9))
    probabilities.scatter_(-1, left[..., None] + 1, weight_right[..., None].clamp(min=1e-9))
    torch.testing.assert_close(
        expected_distances(probabilities.log().flatten(1), bins), distances, atol=1e-5, rtol=0
    )


def test_expected_distances_has_the_right_gradient():
    bins = weighting_function(4, 0.5, 4.0).double()
    logits = torch.randn(2, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: expected_distances(x, bins), (logits,))
