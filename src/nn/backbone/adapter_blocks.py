"""What the tokens of a ViT and those of a pyramid tell each other in a ViT-Adapter.

Legend: B batch, Q queries, S cells of all levels of what is read, P points of all levels, H heads, D width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.deformable import Grid, Sampling, arrange_values, sample_values, star_offsets
from ..layers import flatten_map

NUM_POINTS = 4  # of each level
FFN_RATIO = 0.25


def flatten_maps(maps: Sequence[Tensor]) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Maps [B, D, h, w] as tokens [B, S, D], and their sizes (h, w), read from the maps themselves."""
    shapes_hw = tuple((x.shape[-2], x.shape[-1]) for x in maps)
    return torch.cat([flatten_map(x) for x in maps], 1), shapes_hw


def split_maps(tokens: Tensor, shapes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Tokens [B, S, D] as the maps [B, D, h, w] of these sizes."""
    levels = torch.split(tokens.transpose(1, 2), [h * w for h, w in shapes_hw], -1)
    return [level.reshape(*level.shape[:2], *hw) for level, hw in zip(levels, shapes_hw, strict=True)]


class PyramidAttention(nn.Module):
    """Multi-scale deformable attention (Deformable DETR, eq. 3): a query reads points around its own place.

    Args:
        dim: D.
        num_heads: H.
        num_levels: Levels of what is read.

    Attributes:
        sampling: May be set to `gather` in place of `bilinear` for inference.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_points = (NUM_POINTS,) * num_levels
        self.sampling: Sampling = "bilinear"
        total = num_heads * sum(self.num_points)
        self.sampling_offsets = nn.Linear(dim, 2 * total)
        self.attention_weights = nn.Linear(dim, total)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (self.attention_weights, self.value_proj, self.output_proj):
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(star_offsets(self.num_heads, self.num_points).flatten())

    def forward(self, queries: Tensor, centres: Tensor, memory: Tensor, grid: Grid) -> Tensor:
        """Read the pyramid.

        Args:
            queries: [B, Q, D].
            centres: [Q, 2] (x, y) places of the queries, in units of the whole map.
            memory: [B, S, D] what is read.
            grid: Where its cells lie.

        Returns:
            [B, Q, D].
        """
        batch, num_queries, _ = queries.shape
        points = (batch, num_queries, self.num_heads, sum(self.num_points))
        values = arrange_values(self.value_proj(memory), grid.shapes_hw, self.num_heads, self.sampling)
        # Points are placed in float32: a bfloat16 coordinate would be off by several pixels.
        offsets = _at_least_float32(self.sampling_offsets(queries)).reshape(*points, 2)
        weights = F.softmax(_at_least_float32(self.attention_weights(queries)).reshape(points), -1)
        cells_wh = grid.cells_wh.repeat_interleave(NUM_POINTS, 0)  # [P, 2]; an offset is in cells
        locations = centres[:, None, None] + offsets * cells_wh
        read = sample_values(values, grid.shapes_hw, locations, weights, self.num_points, self.sampling)
        return self.output_proj(read)  # type: ignore[no-any-return]


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Injector(nn.Module):
    """The pyramid tells the ViT's patches what it has seen; nothing at first.

    Args:
        dim: D.
        num_heads: Attention heads.
        num_levels: Levels of the pyramid.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim)
        self.memory_norm = nn.LayerNorm(dim)
        self.attention = PyramidAttention(dim, num_heads, num_levels)
        self.gamma = nn.Parameter(torch.zeros(dim))

    def forward(self, patches: Tensor, patch_grid: Grid, pyramid: Tensor, pyramid_grid: Grid) -> Tensor:
        """`patches` [B, Q, D] with what they read in `pyramid` [B, S, D] added."""
        read: Tensor = self.attention(
            self.query_norm(patches), patch_grid.centres, self.memory_norm(pyramid), pyramid_grid
        )
        return patches + self.gamma * read


class Extractor(nn.Module):
    """The pyramid reads the ViT's patches, and each of its levels is mixed by a convolution.

    Args:
        dim: D.
        num_heads: Attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim)
        self.memory_norm = nn.LayerNorm(dim)
        self.attention = PyramidAttention(dim, num_heads, 1)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = ConvFFN(dim, int(dim * FFN_RATIO))

    def forward(self, pyramid: Tensor, pyramid_grid: Grid, patches: Tensor, patch_grid: Grid) -> Tensor:
        """`pyramid` [B, Q, D] after reading `patches` [B, S, D]."""
        read = self.attention(
            self.query_norm(pyramid), pyramid_grid.centres, self.memory_norm(patches), patch_grid
        )
        pyramid = pyramid + read
        mixed: Tensor = pyramid + self.ffn(self.ffn_norm(pyramid), pyramid_grid.shapes_hw)
        return mixed


class ConvFFN(nn.Module):
    """Two linear layers with a depth-wise 3x3 convolution on each level's map between them.

    Args:
        dim: Width of a token.
        hidden_dim: Width between the layers.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(dim, hidden_dim)
        self.mix = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.widen = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor, shapes_hw: Sequence[tuple[int, int]]) -> Tensor:
        """[B, Q, dim] of the same, whose levels have these sizes."""
        maps = split_maps(self.narrow(tokens), shapes_hw)
        mixed, _ = flatten_maps([self.mix(x) for x in maps])
        return self.widen(F.gelu(mixed))  # type: ignore[no-any-return]
