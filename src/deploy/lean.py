"""A detector for inference alone: the same values for less work than the modules that trained it need.

Legend: B batch, T tokens (class and registers first), H heads, d width of one head, D = H * d.
"""

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn

from ..nn.backbone.sta import SpatialTuningAdapter


class LeanAttention(nn.Module):
    """A ViT block's attention with every constant in its weights, and one rotation for queries and keys.

    The scale of the scores is part of the queries' weights and the block's layer scale part of the last
    projection. Class and register tokens turn with the others, by an angle of 0.

    Args:
        attention: What it does the work of; `can_be_lean` says of it.
        gain: [D] the block's layer scale for this branch, None for none.
    """

    def __init__(self, attention: EvaAttention, gain: Tensor | None) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        weights = list(attention.qkv.weight.detach().chunk(3))
        biases: list[Tensor | None] = [None, None, None]
        if attention.q_bias is not None:
            biases = [attention.q_bias, cast(Tensor, attention.k_bias), attention.v_bias]
        scale = attention.head_dim**-0.5
        self.queries_keys = _linear(
            torch.cat((weights[0] * scale, weights[1])),
            None if biases[0] is None else torch.cat((biases[0] * scale, cast(Tensor, biases[1]))),
        )
        self.values = _linear(weights[2], biases[2])
        self.proj = _scaled(attention.proj, gain)

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """As timm's: x [B, T, D], rope [..., patches, 2 * d] sines and cosines of the last tokens."""
        batch, num_tokens, _ = x.shape
        both = self.queries_keys(x).reshape(batch, num_tokens, 2 * self.num_heads, -1).transpose(1, 2)
        values = self.values(x).reshape(batch, num_tokens, self.num_heads, -1).transpose(1, 2)
        if rope is not None:
            both = _rotated(both, rope)
        queries, keys = both.to(values.dtype).chunk(2, 1)
        read = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=attn_mask, is_causal=is_causal, scale=1.0
        )
        return self.proj(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Turn the pairs (i, i + d / 2) of the last tokens of x [B, H, T, d] by the angles in `rope`."""
    width, num_still = x.shape[-1], x.shape[-2] - rope.shape[-2]
    # Slices, not chunks: a runtime's optimiser makes them one table.
    sine = torch.cat((-rope[..., : width // 2], rope[..., width // 2 : width]), -1)
    sine = F.pad(sine, (0, 0, num_still, 0))
    cosine = F.pad(rope[..., width:], (0, 0, num_still, 0), value=1.0)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((second, first), -1) * sine


@torch.no_grad()
def make_lean(model: nn.Module) -> nn.Module:
    """A copy of `model` for inference alone: the same outputs within rounding, for less work.

    ViT blocks get `LeanAttention` and carry their layer scales in their weights; the spatial tuning adapter
    carries its last batch norms in its projections. Convolutions keep channels innermost in memory, which is
    faster on a CPU and makes tokens of a map without a copy. What is not of these kinds stays as it is.

    Args:
        model: Any detector, best one that `to_deploy` made; it is not changed.

    Returns:
        The copy in evaluation mode, without gradients. It must not be set to training mode.
    """
    lean = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(lean.modules()):
        if isinstance(module, Eva):
            for block in module.blocks:
                if type(block) is EvaBlock:
                    _make_block_lean(block)
        elif isinstance(module, SpatialTuningAdapter):
            _fold_last_norms(module)
    return lean.requires_grad_(False).to(memory_format=torch.channels_last)


def can_be_lean(attention: nn.Module) -> bool:
    """Whether `LeanAttention` can do its work: DINOv3's kind of attention, with plain weights."""
    return (
        type(attention) is EvaAttention
        and type(attention.qkv) is nn.Linear
        and attention.qkv.bias is None
        and type(attention.proj) is nn.Linear
        and attention.rotate_half
        and attention.gate is None
        and all(
            isinstance(part, nn.Identity) for part in (attention.q_norm, attention.k_norm, attention.norm)
        )
    )


def _make_block_lean(block: EvaBlock) -> None:
    if can_be_lean(block.attn):
        cast(Any, block).attn = LeanAttention(cast(EvaAttention, block.attn), block.gamma_1)
        block.gamma_1 = None
    last = getattr(block.mlp, "fc2", None)
    if type(last) is nn.Linear:
        cast(Any, block.mlp).fc2 = _scaled(last, block.gamma_2)
        block.gamma_2 = None


def _fold_last_norms(adapter: SpatialTuningAdapter) -> None:
    """Bring each level's batch norm into the projections that are summed before it."""
    for level, norm in enumerate(adapter.fused_norms):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        tap = cast(nn.Conv2d, adapter.projections[level])
        if adapter.halve is not None and level == len(adapter.fused_norms) - 1:
            tap = adapter.halve  # the last convolution of P32, with zeros around the map
        scale = norm.weight.double() / (cast(Tensor, norm.running_var).double() + norm.eps).sqrt()
        shift = norm.bias.double() - cast(Tensor, norm.running_mean).double() * scale
        detail = [cast(nn.Conv2d, adapter.detail_projections[level])] if adapter.detail is not None else []
        for conv in (tap, *detail):
            conv.weight = nn.Parameter((conv.weight * scale[:, None, None, None]).to(conv.weight))
        tap.bias = nn.Parameter(shift.to(tap.weight))  # resizing keeps a constant as it is
        adapter.fused_norms[level] = nn.Identity()


def _scaled(linear: nn.Linear, gain: Tensor | None) -> nn.Linear:
    """`linear` with `gain` [out] on its output, in its weights."""
    if gain is None:
        return linear
    bias = None if linear.bias is None else linear.bias * gain
    return _linear(linear.weight * gain[:, None], bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach())
    return made
