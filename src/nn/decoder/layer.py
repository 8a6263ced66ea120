"""One decoder layer, and the small heads around it.

Legend: B batch, Q queries, D width, R bins, C classes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.deformable import Sampling
from ..layers import MLP, Activation, SelfAttention, make_activation
from .attention import DeformableAttention

FLOAT16_MAX = 65504.0


class LayerSizes(NamedTuple):
    """What all decoder layers have in common.

    Attributes:
        hidden_dim: D.
        nhead: Attention heads.
        dim_feedforward: Width between the two linear layers.
        dropout: Chance that a value is dropped.
        activation: Between the two linear layers.
        num_points: Points of deformable attention on each level.
        sampling: How it reads between cells.
        use_gateway: Whether a learnt gate mixes a query with what it has read, or a plain sum.
    """

    hidden_dim: int
    nhead: int
    dim_feedforward: int
    dropout: float
    activation: Activation
    num_points: tuple[int, ...]
    sampling: Sampling
    use_gateway: bool

    def scaled_to(self, width: int) -> "LayerSizes":
        """The same with `width` in place of `hidden_dim`, and the feed-forward part in proportion."""
        feedforward = round(self.dim_feedforward * width / self.hidden_dim)
        return self._replace(hidden_dim=width, dim_feedforward=feedforward)


class Gate(nn.Module):
    """Weighs two inputs against each other, channel by channel, and normalises their sum (D-FINE's gateway).

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * hidden_dim, 2 * hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, Q, D] twice -> [B, Q, D]."""
        share_x, share_y = self.gate(torch.cat((x, y), -1)).sigmoid().chunk(2, -1)
        return self.norm(share_x * x + share_y * y)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward; norms after the residuals.

    Args:
        sizes: See `LayerSizes`.
    """

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        dim = sizes.hidden_dim
        self.self_attn = SelfAttention(dim, sizes.nhead, sizes.dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, sizes.nhead, sizes.num_points, sizes.sampling)
        if sizes.use_gateway:
            self.gateway: Gate | None = Gate(dim)
        else:
            self.gateway = None
            self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, sizes.dim_feedforward)
        self.linear2 = nn.Linear(sizes.dim_feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.act = make_activation(sizes.activation)
        self.dropout = nn.Dropout(sizes.dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference_cxcywh: Tensor,
        values: Sequence[Tensor],
        shapes_hw: Sequence[tuple[int, int]],
        blocked: Tensor | None,
    ) -> Tensor:
        """Refine the queries.

        Args:
            x: [B, Q, D] queries.
            position: [B, Q, D] their position code.
            reference_cxcywh: [B, Q, 4] their boxes in units of the whole (padded) map.
            values: The pyramid as `arrange_values` gives it.
            shapes_hw: Size of each level's map.
            blocked: [Q, Q] True where a query (row) must not see another (column); None where all see all.

        Returns:
            [B, Q, D].
        """
        x = self.norm1(x + self.dropout(self.self_attn(x + position, x, blocked)))
        read = self.dropout(self.cross_attn(x + position, reference_cxcywh, values, shapes_hw))
        x = self.norm2(x + read) if self.gateway is None else self.gateway(x, read)
        grown = self.linear2(self.dropout(self.act(self.linear1(x))))
        # float16 may overflow here; a norm of an infinite value would be NaN
        return self.norm3((x + self.dropout(grown)).clamp(-FLOAT16_MAX, FLOAT16_MAX))  # type: ignore[no-any-return]


class QualityEstimator(nn.Module):
    """Adds to a query's class logits what the sharpness of its edge distributions says (D-FINE's LQE).

    Args:
        num_bins: R.
        num_top: How many of a distribution's largest probabilities are looked at.
        hidden_dim: Width between the two linear layers.
    """

    def __init__(self, num_bins: int, *, num_top: int = 4, hidden_dim: int = 64) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.num_top = num_top
        self.mlp = MLP(4 * (num_top + 1), hidden_dim, 1, 2, zero_last=True)

    def forward(self, logits: Tensor, corners: Tensor) -> Tensor:
        """`logits` [B, Q, C] with the quality of `corners` [B, Q, 4 * R] added to all classes."""
        batch, num_queries, _ = corners.shape
        probabilities = corners.reshape(batch, num_queries, 4, self.num_bins).softmax(-1)
        top = probabilities.topk(self.num_top, -1).values
        seen = torch.cat((top, top.mean(-1, keepdim=True)), -1)
        quality: Tensor = self.mlp(seen.flatten(2))
        return logits.float() + quality.float()  # bfloat16 would make ties of scores


class Projection(nn.Module):
    """A linear layer and a norm.

    Args:
        dim: Width of input and output.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return self.norm(self.proj(x))  # type: ignore[no-any-return]


def make_score_head(dim: int, num_classes: int) -> nn.Linear:
    """Class logits from a query; every class starts at a probability of 1 % (focal loss, section 4.1)."""
    head = nn.Linear(dim, num_classes)
    nn.init.constant_(head.bias, -math.log(99.0))
    return head


def stretch(x: Tensor, width: int) -> Tensor:
    """`x` [B, Q, D] with channels repeated or left out, so that there are `width`."""
    return x if x.shape[-1] == width else F.interpolate(x, size=width, mode="nearest")
