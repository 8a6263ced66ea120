"""Deformable sampling: a weighted mean of a pyramid's values at points between its cells.

Legend: B batch, L levels, S cells of all levels, Q queries, H heads, P points of all levels, D width,
c = D / H.

Three ways to sample:
- `bilinear`: torch's grid_sample, zeros outside the map;
- `gather`: the same values (to float32's last digits) by plain gathers, for inference: faster on a CPU, and
  right in runtimes in which GridSample is slow or wrong;
- `nearest`: the value of the cell that a point lies in, points outside moved to the border.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .padding import is_symbol

Sampling = Literal["bilinear", "gather", "nearest"]


class Grid(NamedTuple):
    """Where the cells of a pyramid's maps lie; levels one after the other, each row by row.

    Attributes:
        shapes_hw: Size of each level's map.
        centres: [S, 2] float32 (x, y) in units of the whole map, from (0, 0) to (1, 1).
        cells_wh: [L, 2] float32 width and height of a level's cells, likewise.
    """

    shapes_hw: tuple[tuple[int, int], ...]
    centres: Tensor
    cells_wh: Tensor


def make_grid(shapes_hw: Sequence[tuple[int, int]], device: torch.device) -> Grid:
    """The grid of maps of these sizes; nothing is copied to `device`, so nothing waits for it."""

    def axis(size: int) -> Tensor:
        return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size

    centres = [
        torch.stack(torch.meshgrid(axis(w), axis(h), indexing="xy"), -1).flatten(0, 1) for h, w in shapes_hw
    ]
    sides = [torch.full((1,), 1 / side, device=device) for h, w in shapes_hw for side in (w, h)]
    return Grid(tuple(shapes_hw), torch.cat(centres), torch.cat(sides).reshape(-1, 2))


def star_offsets(num_heads: int, num_points: Sequence[int]) -> Tensor:
    """Where deformable attention looks at first: head h in direction 2 pi h / H, point by point further out.

    Args:
        num_heads: H.
        num_points: Points of each level.

    Returns:
        [H, P, 2] (x, y); a level's n-th point, from 1, lies n steps away along one side or both.
    """
    angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
    directions = torch.stack((angles.cos(), angles.sin()), -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.cat([torch.arange(1, count + 1) for count in num_points])
    return directions[:, None] * steps[:, None]


def arrange_values(
    memory: Tensor, shapes_hw: Sequence[tuple[int, int]], num_heads: int, sampling: Sampling
) -> tuple[Tensor, ...]:
    """Lay `memory` out once for many calls of `sample_values`, in float32 or more.

    Args:
        memory: [B, S, D], levels one after the other, each row by row.
        shapes_hw: Size of each level's map.
        num_heads: H.
        sampling: As it is given to `sample_values`.

    Returns:
        For `bilinear` a map [B * H, c, h, w] for each level, otherwise one [B * S * H, c].
    """
    batch, _, width = memory.shape
    memory = memory.to(torch.promote_types(memory.dtype, torch.float32))
    if sampling != "bilinear":
        return (memory.reshape(-1, width // num_heads),)
    maps = []
    start = 0
    for h, w in shapes_hw:
        # [B, h * w, D] -> [B * H, c, h, w]
        level = memory[:, start : start + h * w].transpose(1, 2)
        maps.append(level.reshape(batch * num_heads, width // num_heads, h, w))
        start += h * w
    return tuple(maps)


def sample_values(
    values: Sequence[Tensor],
    shapes_hw: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    num_points: Sequence[int],
    sampling: Sampling,
) -> Tensor:
    """Weighted sums of the values at `locations`.

    Args:
        values: What `arrange_values` gave.
        shapes_hw: Size of each level's map.
        locations: [B, Q, H, P, 2] float32 (x, y) in units of the whole map, from (0, 0) to (1, 1).
        weights: [B, Q, H, P] float32.
        num_points: Points of each level; the first of the P belong to the first level.
        sampling: How to read between cells.

    Returns:
        [B, Q, D] float32.
    """
    if sampling == "bilinear":
        return _sample_maps(values, locations, weights, num_points)
    batch, num_queries, num_heads, total, _ = locations.shape
    cells, shares = _cells_around(shapes_hw, locations, num_points, nearest=sampling == "nearest")
    # [B, Q, H, P, K] cells of a picture -> [B * Q * H, P * K] rows of values
    taps = total * cells.shape[-1]
    picture = torch.arange(batch, device=locations.device).reshape(-1, 1, 1, 1, 1)
    head = torch.arange(num_heads, device=locations.device).reshape(-1, 1, 1)
    first = picture * (num_heads * sum(h * w for h, w in shapes_hw)) + head
    rows = (cells * num_heads + first).reshape(-1, taps)
    shares = (shares * weights[..., None]).reshape(-1, taps)
    width = num_heads * values[0].shape[1]
    return _weighted_sums(values[0], rows, shares).reshape(batch, num_queries, width)


def _weighted_sums(values: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Sums [N, c] of the `rows` [N, K] of `values` [M, c], each times its share [N, K]."""
    if torch.compiler.is_exporting():  # ONNX has no embedding_bag
        read = values.index_select(0, rows.flatten()).reshape(-1, rows.shape[1], values.shape[1])
        return torch.bmm(shares[:, None], read)
    # Nothing that is read is stored: on a CPU several times as fast.
    return F.embedding_bag(rows, values, per_sample_weights=shares, mode="sum")


def _sample_maps(
    maps: Sequence[Tensor], locations: Tensor, weights: Tensor, num_points: Sequence[int]
) -> Tensor:
    batch, num_queries, num_heads, total, _ = locations.shape
    # [B, Q, H, P, 2] -> [B * H, Q, P, 2], from [0, 1] to grid_sample's [-1, 1]
    grid = (2 * locations - 1).transpose(1, 2).reshape(batch * num_heads, num_queries, total, 2)
    sampled = [
        F.grid_sample(level, part, mode="bilinear", padding_mode="zeros", align_corners=False)
        for level, part in zip(maps, torch.split(grid, list(num_points), 2), strict=True)
    ]
    # [B * H, c, Q, P] -> [B, Q, D]
    shares = weights.transpose(1, 2).reshape(batch * num_heads, 1, num_queries, total)
    mean = (torch.cat(sampled, -1) * shares).sum(-1)
    return mean.reshape(batch, num_heads * mean.shape[1], num_queries).transpose(1, 2)


def _cells_around(
    shapes_hw: Sequence[tuple[int, int]], locations: Tensor, num_points: Sequence[int], *, nearest: bool
) -> tuple[Tensor, Tensor]:
    """The cells [B, Q, H, P, K] of a picture that each point reads, and their shares; K is 1 or 4."""
    levels = [level for level, count in enumerate(num_points) for _ in range(count)]
    sides = [side for level in levels for side in shapes_hw[level][::-1]]
    sizes = _numbers(sides, locations).reshape(-1, 2)  # [P, 2] widths and heights
    cells, shares = _taps(locations * sizes, sizes, nearest=nearest)
    # Whole numbers before they are multiplied: bfloat16, in which a runtime may calculate, ends them at 256.
    cells = cells.long()
    widths = _numbers(sides[::2], cells)[:, None]
    starts = _numbers([sum(h * w for h, w in shapes_hw[:level]) for level in levels], cells)[:, None]
    rows = cells[..., 1, :] * widths + starts
    cells = (rows[..., :, None] + cells[..., 0, None, :]).flatten(-2)
    return cells, (shares[..., 1, :, None] * shares[..., 0, None, :]).flatten(-2)


def _numbers(values: list[int], like: Tensor) -> Tensor:
    """`values`, known or symbols, as a tensor of the device and type of `like`."""
    if any(map(is_symbol, values)):
        return torch.cat([like.new_full((1,), value) for value in values])
    return like.new_tensor(values)


def _taps(position: Tensor, sizes: Tensor, *, nearest: bool) -> tuple[Tensor, Tensor]:
    """The one or two cells [..., P, 2, 1 or 2] along each side that `position` [..., P, 2], in cells, reads.

    Returns:
        The cells, moved to the border of `sizes` [P, 2] where they lie outside, and their shares.
    """
    if nearest:
        cell = position.floor()[..., None]
        share = torch.ones_like(cell)
    else:
        position = (position - 0.5)[..., None]
        cell = position.floor() + position.new_tensor((0, 1))
        share = 1 - (position - cell).abs()
    inside = torch.minimum(cell.clamp(min=0), sizes[..., None] - 1)
    return inside, share if nearest else torch.where(cell == inside, share, 0)
