import math

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from src.ops.boxes import corner_planes, cxcywh_to_xyxy, inverse_sigmoid, overlap, xyxy_to_cxcywh


def random_corners(*shape: int) -> torch.Tensor:
    first = torch.rand(*shape, 2)
    return torch.cat((first, first + 0.01 + torch.rand(*shape, 2)), -1)


def test_conversions_by_hand_and_there_and_back() -> None:
    corners = cxcywh_to_xyxy(torch.tensor([[0.5, 0.4, 0.2, 0.6]]))
    torch.testing.assert_close(corners, torch.tensor([[0.4, 0.1, 0.6, 0.7]]))
    boxes = random_corners(2, 3)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_corner_planes_are_the_corners() -> None:
    boxes = torch.rand(2, 3, 4)
    torch.testing.assert_close(torch.stack(corner_planes(boxes), -1), cxcywh_to_xyxy(boxes))


def test_conversions_keep_empty_and_any_leading_shape() -> None:
    assert cxcywh_to_xyxy(torch.zeros(0, 4)).shape == (0, 4)
    assert xyxy_to_cxcywh(torch.zeros(2, 0, 5, 4)).shape == (2, 0, 5, 4)


def test_inverse_sigmoid_undoes_sigmoid_and_clamps() -> None:
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid()), x)
    ends = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    bound = math.log(1e5)
    torch.testing.assert_close(ends, torch.tensor([-bound, -bound, bound, bound]), rtol=1e-4, atol=0)
    assert float(inverse_sigmoid(torch.tensor(0.0), eps=1e-2)) == pytest.approx(-math.log(100))


def test_iou_and_giou_equal_torchvisions_for_all_pairs() -> None:
    torch.manual_seed(0)
    first, second = random_corners(6), random_corners(9)
    iou, giou = overlap(first[:, None].unbind(-1), second[None].unbind(-1))
    torch.testing.assert_close(iou, box_iou(first, second))
    torch.testing.assert_close(giou, generalized_box_iou(first, second))


def test_iou_and_giou_by_hand() -> None:
    """Equal boxes; boxes that share a quarter; boxes apart with a hull of 9, of which they fill 2."""
    first = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 1, 1]])
    second = torch.tensor([[0.0, 0, 1, 1], [1, 1, 3, 3], [2, 2, 3, 3]])
    iou, giou = overlap(first.unbind(-1), second.unbind(-1))
    torch.testing.assert_close(iou, torch.tensor([1, 1 / 7, 0]))
    torch.testing.assert_close(giou, torch.tensor([1, 1 / 7 - 2 / 9, -7 / 9]))


def test_degenerate_boxes_and_their_gradients_are_finite() -> None:
    first = torch.tensor(
        [[0.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], [0.2, 0.2, 0.2, 0.9]], requires_grad=True
    )
    second = torch.tensor([[0.0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0.3, 0.3, 0.1, 0.1]])
    iou, giou = overlap(first.unbind(-1), second.unbind(-1))
    assert iou.isfinite().all() and giou.isfinite().all()
    assert ((iou >= 0) & (iou <= 1) & (giou >= -1) & (giou <= 1)).all()
    (iou.sum() + giou.sum()).backward()
    assert first.grad is not None and first.grad.isfinite().all()


def test_overlap_has_a_gradient_that_pulls_boxes_together() -> None:
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], requires_grad=True)
    overlap(box.unbind(-1), torch.tensor([[2.0, 0.0, 3.0, 1.0]]).unbind(-1))[1].sum().backward()
    assert box.grad is not None and box.grad[0, 2] > 0
