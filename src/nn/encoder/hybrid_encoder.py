"""The encoder between backbone and decoder: attention on the coarsest map, convolutions across levels."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...structures import Level
from ..layers import Activation, ConvNorm
from .attention import EncoderLayer, MapEncoder
from .blocks import Downsample, FuseBlock
from .checkpointing import checkpointed


class HybridEncoder(nn.Module):
    """RT-DETR's hybrid encoder as D-FINE has it, or with DEIMv2's lighter parts.

    Args:
        levels: What the backbone gives, shallow first; each half the size of the one before.
        in_channels: What the reader of a configuration expects of `levels`; compared with them.
        feat_strides: Likewise.
        hidden_dim: Width of every map given.
        use_encoder_idx: Levels that get self-attention.
        num_encoder_layers: Layers of it.
        nhead: Attention heads.
        dim_feedforward: Width inside an attention layer's second half.
        dropout: In attention layers.
        enc_act: Activation of attention layers.
        pe_temperature: Of their position code.
        expansion: Width of the fuse blocks' branches, as a multiple of hidden_dim / 2.
        depth_mult: Depth of the fuse blocks, as a multiple of 3.
        act: Activation of the fuse blocks.
        fusion: How two levels meet: side by side or added.
        fuse_block: D-FINE's block, or DEIMv2's lighter one.
        input_projection: Whether a level that has `hidden_dim` channels already is projected all the same
            (as D-FINE does) or taken as it is (as DEIMv2 does).
        gradient_checkpointing: Keep the inputs of attention and convolutional blocks alone in training and
            compute the blocks anew for their gradients: less memory for more work, the same results.

    Raises:
        ValueError: A knob outside what is allowed, or one that `levels` contradicts.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        in_channels: tuple[int, ...] | None = None,
        feat_strides: tuple[int, ...] | None = None,
        hidden_dim: int = 256,
        use_encoder_idx: tuple[int, ...] = (2,),
        num_encoder_layers: int = 1,
        nhead: int = 8,
        dim_feedforward: int = 1024,
        dropout: float = 0.0,
        enc_act: Activation = "gelu",
        pe_temperature: float = 10000.0,
        expansion: float = 1.0,
        depth_mult: float = 1.0,
        act: Activation = "silu",
        fusion: Literal["concat", "sum"] = "concat",
        fuse_block: Literal["full", "light"] = "full",
        input_projection: Literal["always", "where_needed"] = "always",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_width(hidden_dim, nhead)
        _check_levels(levels, in_channels, feat_strides, use_encoder_idx)
        self.levels = tuple(Level(hidden_dim, level.stride) for level in levels)
        self.use_encoder_idx = tuple(use_encoder_idx)
        self.fusion = fusion
        self.gradient_checkpointing = gradient_checkpointing
        self.input_proj = nn.ModuleList(
            ConvNorm(level.channels, hidden_dim, 1)
            if input_projection == "always" or level.channels != hidden_dim
            else nn.Identity()
            for level in levels
        )

        def attention() -> MapEncoder:
            sizes = (hidden_dim, nhead, dim_feedforward, dropout)
            return MapEncoder(
                [EncoderLayer(*sizes, enc_act) for _ in range(num_encoder_layers)], pe_temperature
            )

        def fuse() -> FuseBlock:
            return FuseBlock(
                hidden_dim * (2 if fusion == "concat" else 1),
                hidden_dim,
                2 * hidden_dim,
                round(expansion * hidden_dim // 2),
                round(3 * depth_mult),
                light=fuse_block == "light",
                act=act,
            )

        steps = range(len(levels) - 1)
        self.encoder = nn.ModuleList(attention() for _ in use_encoder_idx)
        self.lateral_convs = nn.ModuleList(ConvNorm(hidden_dim, hidden_dim, 1) for _ in steps)
        self.fpn_blocks = nn.ModuleList(fuse() for _ in steps)
        self.downsample_convs = nn.ModuleList(Downsample(hidden_dim) for _ in steps)
        self.pan_blocks = nn.ModuleList(fuse() for _ in steps)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps [B, channels, h, w] as the given levels -> [B, hidden_dim, h, w] as `self.levels`."""
        projected = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        for index, attention in zip(self.use_encoder_idx, self.encoder, strict=True):
            projected[index] = self._run(attention, projected[index])

        top_down = [projected[-1]]  # coarse first
        for step, lower in enumerate(reversed(projected[:-1])):
            top_down[-1] = self.lateral_convs[step](top_down[-1])
            raised = F.interpolate(top_down[-1], scale_factor=2.0, mode="nearest")
            top_down.append(self._run(self.fpn_blocks[step], self._join(raised, lower)))

        bottom_up = [top_down[-1]]  # fine first
        for step, higher in enumerate(reversed(top_down[:-1])):
            lowered = self._run(self.downsample_convs[step], bottom_up[-1])
            bottom_up.append(self._run(self.pan_blocks[step], self._join(lowered, higher)))
        return tuple(bottom_up)

    def _run(self, part: nn.Module, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return checkpointed(part, x)
        return part(x)  # type: ignore[no-any-return]

    def _join(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat((x, y), 1) if self.fusion == "concat" else x + y


def _check_width(hidden_dim: int, nhead: int) -> None:
    if hidden_dim % 4 or hidden_dim % nhead:
        raise ValueError(f"HybridEncoder.hidden_dim: {hidden_dim}; a multiple of 4 and of nhead ({nhead}).")


def _check_levels(
    levels: Sequence[Level],
    in_channels: tuple[int, ...] | None,
    feat_strides: tuple[int, ...] | None,
    use_encoder_idx: tuple[int, ...],
) -> None:
    true_channels = tuple(level.channels for level in levels)
    true_strides = tuple(level.stride for level in levels)
    if in_channels is not None and tuple(in_channels) != true_channels:
        raise ValueError(
            f"HybridEncoder.in_channels: {tuple(in_channels)} stated, but the backbone gives {true_channels}."
        )
    if feat_strides is not None and tuple(feat_strides) != true_strides:
        raise ValueError(
            f"HybridEncoder.feat_strides: {tuple(feat_strides)} stated, but the backbone gives "
            f"{true_strides}."
        )
    if any(b != 2 * a for a, b in zip(true_strides[:-1], true_strides[1:], strict=True)):
        raise ValueError(f"HybridEncoder: strides {true_strides}; each must be twice the one before.")
    if len(set(use_encoder_idx)) != len(use_encoder_idx) or not set(use_encoder_idx) <= set(
        range(len(levels))
    ):
        raise ValueError(
            f"HybridEncoder.use_encoder_idx: {tuple(use_encoder_idx)}; different levels, "
            f"0 to {len(levels) - 1}."
        )
