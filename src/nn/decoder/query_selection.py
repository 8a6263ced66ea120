"""Where queries may come from, and the boxes that they start as.

Legend: B batch, Q queries, C classes, D width, S cells of all levels, n of them candidates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...ops.boxes import inverse_sigmoid
from ...ops.padding import is_symbol
from ..layers import flatten_map

MARGIN = 0.01  # cells this near to the picture's edge, or beyond it, propose nothing
BASE_SIZE = 0.05  # side of the finest level's boxes; each level doubles it
MAX_SIZE = 0.8

CellRange = tuple[int, int]


def _inner_cells(num_cells: int, extent: float) -> CellRange:
    """The cells whose centre lies in the picture and not in its margin, as a range (may be empty)."""
    inside = [i for i in range(num_cells) if MARGIN < (i + 0.5) / (num_cells * extent) < 1 - MARGIN]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def candidate_ranges(
    shapes_hw: Sequence[tuple[int, int]], extent_hw: tuple[float, float]
) -> list[tuple[CellRange, CellRange]]:
    """Rows and columns of each level from which queries may come.

    A picture that is too small for any (a few pixels) gets the first cell of the finest level. Where sizes
    are symbols it is all of them, and `may_propose` says which may be chosen.

    Args:
        shapes_hw: Size of each level's map.
        extent_hw: The part of the map that the picture covers.
    """
    if is_symbol(shapes_hw[0][0]):
        return [((0, h), (0, w)) for h, w in shapes_hw]
    ranges = [(_inner_cells(h, extent_hw[0]), _inner_cells(w, extent_hw[1])) for h, w in shapes_hw]
    if all(rows[1] == rows[0] or columns[1] == columns[0] for rows, columns in ranges):
        rows, columns = ranges[0]
        ranges[0] = (rows if rows[1] else (0, 1), columns if columns[1] else (0, 1))
    return ranges


def candidate_tokens(maps: Sequence[Tensor], ranges: Sequence[tuple[CellRange, CellRange]]) -> Tensor:
    """The candidate cells of `maps` [B, D, h, w] as [B, n, D]."""
    parts = [
        flatten_map(x[:, :, rows[0] : rows[1], columns[0] : columns[1]])
        for x, (rows, columns) in zip(maps, ranges, strict=True)
        if rows[1] > rows[0] and columns[1] > columns[0]
    ]
    return torch.cat(parts, 1)


def candidate_anchors(
    shapes_hw: Sequence[tuple[int, int]],
    extent_hw: tuple[float, float],
    ranges: Sequence[tuple[CellRange, CellRange]],
    device: torch.device,
) -> Tensor:
    """Boxes of the candidate cells, in logits: [n, 4] float32 (cx, cy, w, h) in units of the picture."""
    return inverse_sigmoid(_boxes(shapes_hw, extent_hw, ranges, device).clamp(MARGIN, 1 - MARGIN))


def may_propose(
    shapes_hw: Sequence[tuple[int, int]], extent_hw: tuple[float, float], device: torch.device
) -> Tensor:
    """Which of all cells may give a query: [S] bool."""
    whole = [((0, h), (0, w)) for h, w in shapes_hw]
    centres = _boxes(shapes_hw, extent_hw, whole, device)[:, :2]
    return ((centres > MARGIN) & (centres < 1 - MARGIN)).all(-1)


def choose(logits: Tensor, num_queries: int, *, one2many: bool) -> Tensor:
    """The cells [B, Q] of the best class scores among `logits` [B, n, C], or of the best pairs of both.

    Where n is a symbol there must be as many cells as queries.
    """
    scores = logits.flatten(1) if one2many else logits.amax(-1)
    known = not is_symbol(scores.shape[1])
    best = scores.topk(min(num_queries, scores.shape[1]) if known else num_queries, 1).indices
    return best.div(logits.shape[-1], rounding_mode="floor") if one2many else best


def _boxes(
    shapes_hw: Sequence[tuple[int, int]],
    extent_hw: tuple[float, float],
    ranges: Sequence[tuple[CellRange, CellRange]],
    device: torch.device,
) -> Tensor:
    """Boxes of cells: [n, 4] float32 (cx, cy, w, h) in units of the picture, and beyond it if cells are."""
    parts = []
    for level, ((h, w), (rows, columns)) in enumerate(zip(shapes_hw, ranges, strict=True)):
        if rows[1] == rows[0] or columns[1] == columns[0]:
            continue
        cy = (torch.arange(*rows, device=device) + 0.5) / (h * extent_hw[0])
        cx = (torch.arange(*columns, device=device) + 0.5) / (w * extent_hw[1])
        cy, cx = torch.meshgrid(cy, cx, indexing="ij")
        size = torch.full_like(cx, min(BASE_SIZE * 2**level, MAX_SIZE))
        parts.append(torch.stack((cx, cy, size, size), -1).reshape(-1, 4))
    return torch.cat(parts)
