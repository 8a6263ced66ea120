"""IoU and generalised IoU on coordinate planes, for the many boxes of a training step.

The same maths as `ops.boxes.iou_and_giou`, which keeps the four coordinates in the last dimension. Here each
is a tensor of its own: products over a dimension of two are slow (three times on a CPU), and their gradient
asks the host whether a factor is zero, which is a wait for the device in every backward pass.
"""

from torch import Tensor, maximum, minimum

EPS = 1e-9
Planes = tuple[Tensor, Tensor, Tensor, Tensor]


def corner_planes(boxes_cxcywh: Tensor) -> Planes:
    """Left, top, right and bottom, each [...], of boxes [..., 4]."""
    cx, cy, w, h = boxes_cxcywh.unbind(-1)
    half_w, half_h = 0.5 * w, 0.5 * h
    return cx - half_w, cy - half_h, cx + half_w, cy + half_h


def overlap(first: Planes, second: Planes) -> tuple[Tensor, Tensor]:
    """IoU in [0, 1] and GIoU in [-1, 1] of boxes whose planes broadcast against each other.

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
