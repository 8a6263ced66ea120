"""Distributions over edge offsets: D-FINE's weighting function, and the way from distances to boxes and back.

Legend: R = reg_max + 1 bins. A distance d of an edge is in units of 1 / reg_scale of the reference box's
width (left, right) or height (top, bottom), counted outwards from the reference box's own edge: d = 0 leaves
the edge where it is. Edges come in the order left, top, right, bottom.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_SIDE = 1e-8  # keeps distances of a reference box without width or height finite


def weighting_function(reg_max: int, up: float, reg_scale: float) -> Tensor:
    """The offsets W(0) < W(1) < ... < W(reg_max) that the bins stand for (D-FINE eq. 3).

    Fine steps around zero, coarse ones far from it; the two outermost bins reach twice as far as their
    neighbours do.

    Args:
        reg_max: Index of the last bin, even and at least 4.
        up: D-FINE's a divided by the curvature: offsets grow to |up * reg_scale|, and twice that at the ends.
        reg_scale: D-FINE's c, the curvature.

    Returns:
        [reg_max + 1] float32, odd about its middle.

    Raises:
        ValueError: reg_max is odd or too small, or up or reg_scale is zero.
    """
    if reg_max < 4 or reg_max % 2:
        raise ValueError(f"reg_max must be even and at least 4, but it is {reg_max}")
    reach = abs(up) * abs(reg_scale)
    if reach == 0:
        raise ValueError(f"up and reg_scale must not be zero, but they are {up} and {reg_scale}")
    steps = torch.arange(reg_max // 2, dtype=torch.float64)
    side = (reach + 1) ** (steps * (2 / (reg_max - 2))) - 1
    end = torch.tensor([2 * reach], dtype=torch.float64)
    return torch.cat((-end, -side[1:].flip(0), side, end)).float()


def distances_to_boxes(reference_cxcywh: Tensor, distances: Tensor, reg_scale: float) -> Tensor:
    """Boxes [..., 4] cxcywh whose edges lie `distances` [..., 4] outside those of the reference boxes."""
    centre, size = reference_cxcywh.chunk(2, -1)
    top_left, bottom_right = distances.chunk(2, -1)
    unit = size / abs(reg_scale)
    return torch.cat(
        (centre + (bottom_right - top_left) * unit * 0.5, size + (top_left + bottom_right) * unit), -1
    )


def boxes_to_distances(reference_cxcywh: Tensor, boxes_xyxy: Tensor, reg_scale: float) -> Tensor:
    """Distances [..., 4] that lead from `reference_cxcywh` [..., 4] to `boxes_xyxy` [..., 4] corners.

    The inverse of `distances_to_boxes`.
    """
    centre, size = reference_cxcywh.chunk(2, -1)
    unit = size.clamp(min=SMALLEST_SIDE) / abs(reg_scale)
    top_left = (centre - boxes_xyxy[..., :2] - 0.5 * size) / unit
    bottom_right = (boxes_xyxy[..., 2:] - centre - 0.5 * size) / unit
    return torch.cat((top_left, bottom_right), -1)


def bin_targets(distances: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbouring bins that a true distance falls between: targets of the FGL loss (D-FINE eq. 4).

    Args:
        distances: [...] true distances.
        bins: [R] increasing W(n).

    Returns:
        Index l of the left bin, int64 in [0, R - 2], and the weights of bins l and l + 1. They are linear
        between W[l] and W[l + 1], add up to 1, and put all on the outermost bin for what lies beyond it.
    """
    left = (torch.searchsorted(bins, distances.contiguous(), right=True) - 1).clamp(0, bins.numel() - 2)
    low, high = bins[left], bins[left + 1]
    weight_right = ((distances - low) / (high - low)).clamp(0, 1)
    return left, 1 - weight_right, weight_right


def expected_distances(corner_logits: Tensor, bins: Tensor) -> Tensor:
    """Mean distance [..., 4] of the four distributions in `corner_logits` [..., 4 * R] over `bins` [R]."""
    # [..., 4 * R] -> [..., 4, R]
    probabilities = F.softmax(corner_logits.reshape(*corner_logits.shape[:-1], 4, bins.numel()), -1)
    return (probabilities * bins).sum(-1)
