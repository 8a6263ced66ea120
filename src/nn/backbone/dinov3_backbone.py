"""DINOv3 as a detector's backbone: a ViT from timm and the adapter that makes a pyramid of its tokens."""

from typing import Literal

import torch
from timm.models.eva import Eva
from torch import Tensor

from ...structures import Level
from .lora import LoRA, add_lora, hold_base_weights, merge_lora
from .sta import SpatialTuningAdapter
from .staged import StagedViT, check_knobs
from .vit import ViTShape, build_vit, extract_maps, image_statistics

STRIDES = (8, 16, 32)


class DINOv3Backbone(StagedViT):
    """DINOv3 ViT (`vit`) and spatial tuning adapter (`sta`).

    The constructor builds with random weights; `load_pretrained` (in `pretrained.py`) fills the ViT.
    Freezing means the ViT alone: the adapter starts from nothing and always learns.

    Args:
        model_name: An alias (`dinov3_small`, `dinov3_small_plus`, `dinov3_base`, `dinov3_large`,
            `dinov3_huge_plus`) or the name of any DINOv3 ViT of timm, with or without its tag.
        pretrained: Whether `load_pretrained` fills the ViT; False trains it from scratch.
        checkpoint_path: File for `load_pretrained`; without one it asks timm's hub.
        out_channels: Widths of P8, P16 and P32.
        feat_strides: What the reader of a configuration expects; compared with the truth, (8, 16, 32).
        freeze_backbone: The ViT starts frozen and no stage is meant to release it.
        freeze_backbone_epochs: Epochs for which the ViT is frozen at first; read by the training plan.
        interaction_indexes: Blocks that the adapter taps, from 0, ascending; empty for the last one. Blocks
            after the deepest tap are left out. How taps become levels: see `SpatialTuningAdapter`.
        upsample: How P8 is made of the stride-16 map.
        downsample: How P32 is made of it: 2x2 average and projection, or projection and strided convolution.
        layer_norm: Normalise each tap over its channels once more before the adapter.
        position_grid: Side of a learnt position code added to the taps, stretched to the input; 0 for none.
        detail_channels: Width of a light convolutional branch on the picture; 0 for none.
        embed_dim: Width of the ViT instead of the named model's; from scratch only, as the next three.
        depth: Number of blocks instead of the named model's.
        num_heads: Attention heads instead of the named model's.
        layer_scale: First value of the residual gains instead of DINOv3's 1e-5.
        lora: Low-rank factors that learn in place of the ViT's weights, which then never do; None for none.
            What is said of training blocks here and in the training plan is then said of their factors.
        gradient_checkpointing: Keep each block's input alone in training and compute the block anew for its
            gradients: far less memory for a third more work.
        window: 2 lets the blocks that the adapter does not tap attend inside quarters of the picture, half as
            high and half as wide; 1 lets all blocks attend to the whole of it, as they were trained.

    Attributes:
        levels: Width and stride of P8, P16 and P32.
        image_mean: Mean that the ViT's pictures are normalised with, of RGB in [0, 1].
        image_std: Standard deviation, likewise.

    Raises:
        ValueError: A knob outside what is allowed, or a stated stride that is not the true one.
    """

    def __init__(
        self,
        *,
        model_name: str = "dinov3_small",
        pretrained: bool = True,
        checkpoint_path: str | None = None,
        out_channels: tuple[int, int, int] = (256, 256, 256),
        feat_strides: tuple[int, int, int] = STRIDES,
        freeze_backbone: bool = False,
        freeze_backbone_epochs: int = 0,
        interaction_indexes: tuple[int, ...] = (),
        upsample: Literal["nearest", "bilinear"] = "bilinear",
        downsample: Literal["conv", "pool"] = "pool",
        layer_norm: bool = False,
        position_grid: int = 0,
        detail_channels: int = 0,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        layer_scale: float | None = None,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        window: Literal[1, 2] = 1,
    ) -> None:
        super().__init__()
        shape = ViTShape(embed_dim, depth, num_heads, layer_scale)
        if tuple(feat_strides) != STRIDES:
            raise ValueError(
                f"DINOv3Backbone.feat_strides: {tuple(feat_strides)} stated, but it gives {STRIDES}."
            )
        check_knobs("DINOv3Backbone", freeze_backbone_epochs, shape if pretrained else ViTShape())
        self.model_name = model_name
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.freeze_backbone = freeze_backbone
        self.freeze_backbone_epochs = freeze_backbone_epochs
        self.gradient_checkpointing = gradient_checkpointing

        self.vit: Eva = build_vit(model_name, shape)
        self.full_depth = len(self.vit.blocks)
        self.taps = _checked_taps(interaction_indexes, self.full_depth)
        self.window = _checked_window(window, self.taps)
        self.vit.blocks = self.vit.blocks[: self.taps[-1] + 1]
        self.has_lora = lora is not None
        if lora is not None:
            add_lora(self.vit, lora)
        self.sta = SpatialTuningAdapter(
            self.vit.embed_dim,
            len(self.taps),
            out_channels=out_channels,
            upsample=upsample,
            downsample=downsample,
            layer_norm=layer_norm,
            position_grid=position_grid,
            detail_channels=detail_channels,
        )
        self.levels = tuple(Level(width, stride) for width, stride in zip(out_channels, STRIDES, strict=True))
        self.image_mean, self.image_std = image_statistics(self.vit)
        self.set_trainable_blocks(0 if freeze_backbone else None)

    def set_trainable_blocks(self, blocks: int | None) -> None:
        """Chooses what of the ViT learns from now on; the adapter always does.

        Args:
            blocks: None for the whole ViT, 0 for nothing of it, n for its last n blocks and its final norm;
                with LoRA, of what is chosen so, the factors alone.

        Raises:
            ValueError: There are not so many blocks.
        """
        super().set_trainable_blocks(blocks)
        if self.has_lora:
            hold_base_weights(self.vit)
            self.train(self.training)

    def merge_lora(self) -> None:
        """Brings LoRA's factors, where there are any, into the weights beside them, in place and for good."""
        if self.has_lora:
            merge_lora(self.vit)
            self.has_lora = False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pyramid of a batch.

        Args:
            images: [B, 3, H, W] normalised by `image_mean` and `image_std`; H and W multiples of 32.

        Returns:
            P8 [B, C8, H / 8, W / 8], P16 and P32, as `levels` says.

        Raises:
            ValueError: H or W is no multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(
                f"DINOv3Backbone: input of {height} x {width} (height x width); multiples of {STRIDES[-1]} "
                "are allowed (DFINE pads its pictures to them)."
            )
        return self.sta(self._maps(images), images)  # type: ignore[no-any-return]

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        learns = any(parameter.requires_grad for parameter in self.vit.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return extract_maps(self.vit, images, self.taps, self.window)


def _checked_taps(taps: tuple[int, ...], depth: int) -> tuple[int, ...]:
    if not taps:
        return (depth - 1,)
    if list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] >= depth:
        raise ValueError(
            f"DINOv3Backbone.interaction_indexes: {tuple(taps)}; ascending block indices, 0 to {depth - 1}."
        )
    return tuple(taps)


def _checked_window(window: int, taps: tuple[int, ...]) -> int:
    if window not in (1, 2):  # what divides every grid that comes from multiples of 32
        raise ValueError(f"DINOv3Backbone.window: {window}; 1 (off) or 2 along each side.")
    if window > 1 and len(taps) == taps[-1] + 1:
        raise ValueError(
            f"DINOv3Backbone.window: {window}, but interaction_indexes {taps} taps every block, and tapped "
            "blocks attend globally; leave out window or some of the taps."
        )
    return window
