"""Bipartite matching of queries and objects (DETR, section 3.1), for all outputs of a step at once.

Legend: O outputs (decoder layers, pre, encoder), B batch, Q queries, C classes, T objects of the batch, M the
largest object count of a picture, P = sum over the pictures of min(Q, objects): the pairs of one output.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ...ops.boxes import corner_planes, overlap
from ...structures import Targets
from ..transfer import upload
from .blocks import blocks

DEFAULT_COSTS: Mapping[str, float] = MappingProxyType({"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0})
LARGE_COST = 1e9


class Matches(NamedTuple):
    """Which query stands for which object, in every output, on the host.

    Attributes:
        rows: [O, P] int64, picture * Q + query.
        objects: [O, P] int64, row of the packed targets.
    """

    rows: NDArray[np.int64]
    objects: NDArray[np.int64]


class HungarianMatcher(nn.Module):
    """The cheapest one-to-one assignment of objects to queries, picture by picture.

    The cost of a pair is a focal classification cost, plus the L1 distance of the boxes (cxcywh), minus their
    GIoU, each with its weight. A picture with more objects than queries has every query matched, and the
    objects that fit worst stay without one.

    A cost that is not finite (a prediction was not) is replaced by a large one, so that the assignment
    exists; the losses then show the NaN, and it is theirs to show.

    Args:
        weight_dict: Weights of `cost_class`, `cost_bbox` and `cost_giou`, all three.
        alpha: The focal cost's share of the positive term, in [0, 1].
        gamma: The focal cost's exponent, at least 0.

    Raises:
        ValueError: A weight is missing, unknown, negative, or all are 0, or alpha or gamma is out of range.
    """

    def __init__(
        self, *, weight_dict: Mapping[str, float] = DEFAULT_COSTS, alpha: float = 0.25, gamma: float = 2.0
    ) -> None:
        super().__init__()
        if set(weight_dict) != set(DEFAULT_COSTS):
            raise ValueError(
                f"HungarianMatcher: weight_dict names {sorted(weight_dict)}, "
                f"but it must give exactly {sorted(DEFAULT_COSTS)}"
            )
        if min(weight_dict.values()) < 0 or max(weight_dict.values()) == 0:
            raise ValueError(
                f"HungarianMatcher: weights must be >= 0 and not all 0, but they are {dict(weight_dict)}"
            )
        if not 0 <= alpha <= 1 or gamma < 0:
            raise ValueError(
                f"HungarianMatcher: alpha must be in [0, 1] and gamma >= 0, but they are {alpha} and {gamma}"
            )
        self.weight_dict = dict(weight_dict)
        self.alpha = alpha
        self.gamma = gamma

    @torch.no_grad()
    def forward(self, logits: Tensor, boxes_cxcywh: Tensor, targets: Targets) -> Matches:
        """Match every output's queries to the objects.

        One copy from the device to the host, none where the batch has no object.

        Args:
            logits: [O, B, Q, C].
            boxes_cxcywh: [O, B, Q, 4].
            targets: The objects of the B pictures.
        """
        if not sum(targets.counts):
            none = np.zeros((logits.shape[0], 0), dtype=np.int64)
            return Matches(none, none)
        slots = upload(padded_slots(targets.counts), logits.device)  # [B, M]
        labels, true_boxes = targets.labels[slots], targets.boxes_cxcywh[slots].float()
        num_outputs, num_pictures, num_queries, _ = logits.shape
        costs = boxes_cxcywh.new_empty((num_outputs, *slots.shape, num_queries), dtype=torch.float32)
        for part in blocks(num_pictures, costs[:, 0].numel(), costs.device):
            costs[:, part] = self.pair_costs(
                logits[:, part].float(), boxes_cxcywh[:, part].float(), labels[part], true_boxes[part]
            )
        return assign(costs.cpu().numpy(), targets.counts)

    def pair_costs(self, logits: Tensor, boxes_cxcywh: Tensor, labels: Tensor, true_boxes: Tensor) -> Tensor:
        """What it costs to take each query for each object of its picture.

        Args:
            logits: [O, B, Q, C].
            boxes_cxcywh: [O, B, Q, 4].
            labels: [B, M] of the objects, padded.
            true_boxes: [B, M, 4] cxcywh of the objects, padded.

        Returns:
            [O, B, M, Q], finite.
        """
        # [O, B, Q, C] -> [O, B, Q, M]: only the classes that the picture has are asked for
        index = labels[None, :, None, :].expand(*logits.shape[:3], -1)
        scores = logits.gather(-1, index).transpose(-1, -2)
        probabilities = scores.sigmoid()
        surprise = F.softplus(-scores)  # -log p; and -log(1 - p) is that plus the score
        class_cost = self.alpha * (1 - probabilities).pow(self.gamma) * surprise
        class_cost -= (1 - self.alpha) * probabilities.pow(self.gamma) * (surprise + scores)

        # queries along the last dimension, objects along the one before: [O, B, 1, Q] against [B, M, 1]
        queries, objects = boxes_cxcywh.unsqueeze(-3), true_boxes.unsqueeze(-2)
        distance = torch.zeros_like(class_cost)
        for query, true in zip(queries.unbind(-1), objects.unbind(-1), strict=True):
            distance += (query - true).abs_()
        giou = overlap(corner_planes(queries), corner_planes(objects))[1]

        weights = self.weight_dict
        costs = class_cost.mul_(weights["cost_class"])
        costs = costs.add_(distance, alpha=weights["cost_bbox"]).sub_(giou, alpha=weights["cost_giou"])
        return torch.where(costs.isfinite(), costs, LARGE_COST)


def padded_slots(counts: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows [B, M] of the packed targets, M objects a picture; padding repeats some row."""
    sizes = np.asarray(counts, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    slots = starts[:, None] + np.minimum(np.arange(sizes.max()), np.maximum(sizes[:, None] - 1, 0))
    within: NDArray[np.int64] = np.minimum(slots, sizes.sum() - 1)
    return within


def assign(costs: NDArray[np.float32], counts: tuple[int, ...]) -> Matches:
    """The cheapest assignment under costs [O, B, M, Q], of which picture b uses the first counts[b] rows."""
    num_outputs, _, _, num_queries = costs.shape
    num_pairs = sum(min(count, num_queries) for count in counts)
    rows = np.empty((num_outputs, num_pairs), dtype=np.int64)
    objects = np.empty_like(rows)
    for output in range(num_outputs):
        pair, start = 0, 0
        for picture, count in enumerate(counts):
            chosen, queries = linear_sum_assignment(costs[output, picture, :count])
            end = pair + len(queries)
            rows[output, pair:end] = queries + picture * num_queries
            objects[output, pair:end] = chosen + start
            pair, start = end, start + count
    return Matches(rows, objects)
