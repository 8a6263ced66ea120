"""Boxes: conversions between formats, and their overlap.

Overlaps are computed on coordinate planes, each coordinate a tensor of its own: products over a dimension of
two are slow (three times on a CPU), and their gradient waits for the device to learn whether a factor is 0.
"""

import torch
from torch import Tensor, maximum, minimum

EPS = 1e-9
Planes = tuple[Tensor, Tensor, Tensor, Tensor]


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


def corner_planes(boxes_cxcywh: Tensor) -> Planes:
    """Left, top, right and bottom, each [...], of boxes [..., 4]."""
    cx, cy, w, h = boxes_cxcywh.unbind(-1)
    half_w, half_h = 0.5 * w, 0.5 * h
    return cx - half_w, cy - half_h, cx + half_w, cy + half_h


def overlap(first: Planes, second: Planes) -> tuple[Tensor, Tensor]:
    """IoU in [0, 1] and GIoU in [-1, 1] (Rezatofighi et al. 2019) of boxes whose planes broadcast.

    Boxes of no width or height count as empty, so that the result is finite where the boxes are.
    """
    left1, top1, right1, bottom1 = first
    left2, top2, right2, bottom2 = second
    inter = (minimum(right1, right2) - maximum(left1, left2)).clamp(min=0) * (
        minimum(bottom1, bottom2) - maximum(top1, top2)
    ).clamp(min=0)
    area1 = (right1 - left1).clamp(min=0) * (bottom1 - top1).clamp(min=0)
    area2 = (right2 - left2).clamp(min=0) * (bottom2 - top2).clamp(min=0)
    union = area1 + area2 - inter
    iou = inter / union.clamp(min=EPS)
    hull = (maximum(right1, right2) - minimum(left1, left2)).clamp(min=0) * (
        maximum(bottom1, bottom2) - minimum(top1, top2)
    ).clamp(min=0)
    return iou, iou - (hull - union) / hull.clamp(min=EPS)
