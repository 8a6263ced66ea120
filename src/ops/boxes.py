"""Boxes: conversions between formats, and overlap of boxes that are already paired."""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Corners [..., 4] of boxes [..., 4] given as centre, width and height."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Centre, width and height [..., 4] of boxes [..., 4] given as corners."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(((x0 + x1) * 0.5, (y0 + y1) * 0.5, x1 - x0, y1 - y0), -1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of x [...], with x first clamped to [0, 1] and each side of the ratio to at least `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def iou_and_giou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor, eps: float = 1e-9) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes that broadcast against each other.

    Paired boxes are given as [..., 4] and [..., 4]; all pairs as [..., N, 1, 4] and [..., 1, M, 4].
    Degenerate boxes (width or height <= 0) count as empty, so that the result is always finite.

    Returns:
        IoU in [0, 1] and GIoU in [-1, 1], both of the broadcast shape without its last dimension.
    """
    top_left = torch.maximum(boxes1_xyxy[..., :2], boxes2_xyxy[..., :2])
    bottom_right = torch.minimum(boxes1_xyxy[..., 2:], boxes2_xyxy[..., 2:])
    inter = (bottom_right - top_left).clamp(min=0).prod(-1)
    area1 = (boxes1_xyxy[..., 2:] - boxes1_xyxy[..., :2]).clamp(min=0).prod(-1)
    area2 = (boxes2_xyxy[..., 2:] - boxes2_xyxy[..., :2]).clamp(min=0).prod(-1)
    union = area1 + area2 - inter
    iou = inter / union.clamp(min=eps)
    hull_top_left = torch.minimum(boxes1_xyxy[..., :2], boxes2_xyxy[..., :2])
    hull_bottom_right = torch.maximum(boxes1_xyxy[..., 2:], boxes2_xyxy[..., 2:])
    hull = (hull_bottom_right - hull_top_left).clamp(min=0).prod(-1)
    return iou, iou - (hull - union) / hull.clamp(min=eps)
