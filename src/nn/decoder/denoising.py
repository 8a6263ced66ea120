"""Contrastive denoising: noised copies of the true objects, which the decoder repairs (DINO section 3.3).

Legend: B batch, M largest object count of the batch, G groups, N = G * 2 * M noised queries, Q all queries.
Query g * 2 * M + i is group g's positive copy of object i, g * 2 * M + M + i its negative copy.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ...structures import Targets
from ..transfer import upload


class NoisedQueries(NamedTuple):
    """What the decoder is given beside its own queries.

    Attributes:
        labels: [B, N] int64 class indices; the number of classes marks padding.
        boxes_cxcywh: [B, N, 4] float32 in [0, 1]; padding is all zeros.
        num_groups: G.
        max_count: M, at least 1 so that a batch without any object has the same graph as every other.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
    num_groups: int
    max_count: int


def make_noised_queries(
    targets: Targets,
    num_classes: int,
    *,
    num_denoising: int,
    label_noise_ratio: float,
    box_noise_scale: float,
) -> NoisedQueries:
    """Copy and disturb the objects of a batch; random, on the targets' device.

    Args:
        targets: The objects.
        num_classes: Number of classes; also the label of padding.
        num_denoising: About how many positive copies a picture gets; at least one group is made.
        label_noise_ratio: Twice the chance that a copy gets a random label.
        box_noise_scale: How far a positive copy's edge moves at most, in halves of the box's width or height;
            a negative copy's moves between one and two times as far.
    """
    max_count = max(*targets.counts, 1)
    num_groups = max(1, num_denoising // max_count)
    labels, boxes, is_real = _to_rows(targets, num_classes, max_count)
    # [B, M] -> [B, N]
    labels = labels.repeat(1, 2 * num_groups)
    boxes = boxes.repeat(1, 2 * num_groups, 1)
    is_real = is_real.repeat(1, 2 * num_groups)
    is_negative = torch.arange(labels.shape[1], device=labels.device) % (2 * max_count) >= max_count
    labels = _disturb_labels(labels, is_real, num_classes, label_noise_ratio)
    boxes = _disturb_boxes(boxes, is_negative, box_noise_scale)
    return NoisedQueries(labels, boxes, num_groups, max_count)


def _to_rows(targets: Targets, num_classes: int, max_count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels [B, M], boxes [B, M, 4] and which of them are real [B, M]."""
    device = targets.labels.device
    num_pictures = len(targets.counts)
    sizes = np.asarray(targets.counts, dtype=np.int64)
    pictures = np.repeat(np.arange(num_pictures), sizes)
    places = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    row = upload(pictures * max_count + places, device)
    labels = torch.full((num_pictures * max_count,), num_classes, dtype=torch.int64, device=device)
    boxes = torch.zeros((num_pictures * max_count, 4), dtype=torch.float32, device=device)
    labels = labels.index_copy(0, row, targets.labels).reshape(num_pictures, max_count)
    boxes = boxes.index_copy(0, row, targets.boxes_cxcywh.float()).reshape(num_pictures, max_count, 4)
    return labels, boxes, labels < num_classes


def _disturb_labels(labels: Tensor, is_real: Tensor, num_classes: int, ratio: float) -> Tensor:
    flips = is_real & (torch.rand(labels.shape, device=labels.device) < 0.5 * ratio)
    return torch.where(flips, torch.randint_like(labels, num_classes), labels)


def _disturb_boxes(boxes: Tensor, is_negative: Tensor, scale: float) -> Tensor:
    corners = cxcywh_to_xyxy(boxes)
    half = (boxes[..., 2:] * 0.5).repeat(1, 1, 2)
    sign = torch.randint_like(corners, 2) * 2 - 1
    amount = torch.rand_like(corners) + is_negative[:, None]
    corners = (corners + sign * amount * half * scale).clamp(0, 1)
    # A negative copy's corners may have changed places.
    first, second = corners.chunk(2, -1)
    return xyxy_to_cxcywh(torch.cat((torch.minimum(first, second), torch.maximum(first, second)), -1))


def blocked_pairs(num_queries: int, num_groups: int, max_count: int, device: torch.device) -> Tensor:
    """Who must not see whom in self-attention, noised queries first.

    The decoder's own queries see no noised one (they would read the truth), groups do not see each other,
    noised queries see the decoder's own.

    Returns:
        [N + num_queries, N + num_queries] bool, True where the row must not see the column.
    """
    num_noised = num_groups * 2 * max_count
    group = torch.arange(num_noised + num_queries, device=device).div(2 * max_count, rounding_mode="floor")
    group = group.clamp(max=num_groups)  # the decoder's own queries are one more group
    return (group[:, None] != group) & (group < num_groups)
