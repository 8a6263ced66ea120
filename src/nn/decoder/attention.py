"""Deformable cross-attention: each query reads a few points of the pyramid around its box.

Legend: B batch, S cells of all levels, Q queries, H heads, P points of all levels, D width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.deformable import Sampling, arrange_values, sample_values, star_offsets

OFFSET_SCALE = 0.5  # an offset of one point's number reaches the edge of the box


class DeformableAttention(nn.Module):
    """Deformable attention without projections of values and output, as D-FINE has it.

    Args:
        hidden_dim: D.
        num_heads: H.
        num_points: Points of each level.
        sampling: How values are read between cells; `nearest` has no gradient towards the offsets, which are
            therefore fixed at their start.

    Attributes:
        sampling: May be set to `gather` in place of `bilinear` for export.
    """

    num_points_scale: Tensor

    def __init__(
        self, hidden_dim: int, num_heads: int, num_points: Sequence[int], sampling: Sampling
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_points = tuple(num_points)
        self.sampling: Sampling = sampling
        total = num_heads * sum(num_points)
        self.sampling_offsets = nn.Linear(hidden_dim, 2 * total)
        self.attention_weights = nn.Linear(hidden_dim, total)
        scale = torch.tensor([1 / count for count in num_points for _ in range(count)])
        self.register_buffer("num_points_scale", scale)  # [P]; in the state dict, as upstream has it
        self._reset_parameters()
        if sampling == "nearest":
            self.sampling_offsets.requires_grad_(False)

    def _reset_parameters(self) -> None:
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(star_offsets(self.num_heads, self.num_points).flatten())

    def arrange(self, memory: Tensor, shapes_hw: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """`memory` [B, S, D] as `forward` wants it; layers of the same width can share the result."""
        return arrange_values(memory, shapes_hw, self.num_heads, self.sampling)

    def forward(
        self,
        x: Tensor,
        reference_cxcywh: Tensor,
        values: Sequence[Tensor],
        shapes_hw: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Read the pyramid.

        Args:
            x: [B, Q, D] queries.
            reference_cxcywh: [B, Q, 4] float32 boxes in units of the whole (padded) map.
            values: What `arrange` made of the pyramid.
            shapes_hw: Size of each level's map.

        Returns:
            [B, Q, D] float32.
        """
        batch, num_queries, _ = x.shape
        points = (batch, num_queries, self.num_heads, sum(self.num_points))
        # Points are placed in float32: a bfloat16 coordinate would be off by several pixels.
        offsets = self.sampling_offsets(x).float().reshape(*points, 2)
        weights = F.softmax(self.attention_weights(x).float().reshape(points), -1)
        centre, size = reference_cxcywh[:, :, None, None].chunk(2, -1)
        reach = OFFSET_SCALE * self.num_points_scale[:, None] * size
        locations = centre + offsets * reach
        return sample_values(values, shapes_hw, locations, weights, self.num_points, self.sampling)
