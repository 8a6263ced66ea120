"""DinoAdapter: a DINOv2 or DINOv3 ViT and a pyramid that talk to each other between its blocks.

Legend: B batch, D the ViT's width, P class and register tokens, S cells of strides 8, 16 and 32 together.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...ops.deformable import Grid, make_grid
from ...ops.padding import pad_to_multiple
from ...structures import Level
from ..layers import ConvNorm
from .adapter_blocks import Extractor, Injector, flatten_maps, split_maps
from .dinov2 import build_dinov2, embed_dinov2, is_dinov2
from .spatial_prior import SpatialPrior
from .staged import StagedViT, check_knobs
from .vit import (
    Embedded,
    ViT,
    ViTShape,
    build_vit,
    embed_patches,
    image_statistics,
    run_blocks,
)

STRIDES = (8, 16, 32)
STRIDES_WITH_4 = (4, *STRIDES)
LAST_EXTRACTORS = 3  # of the last interaction; the others have one


class DinoAdapter(StagedViT):
    """ViT-Adapter (Chen et al. 2022) around a DINO ViT (`vit`).

    A convolutional pyramid of the picture goes beside the ViT. Before each of `num_interactions` equal runs
    of blocks the patches read the pyramid (`injectors`), after it the pyramid reads the patches
    (`extractors`). The injectors' gains start at 0, so that the ViT starts undisturbed.

    The constructor builds with random weights; `load_pretrained` (in `pretrained.py`) fills the ViT.
    Freezing means the ViT alone: the adapter starts from nothing and always learns. It learns through
    the blocks, so that a frozen ViT saves few of the activations that it saves in DINOv3Backbone.

    Args:
        model_name: An alias (`dinov3_small`, ..., `dinov2_small`, `dinov2_small_reg4`, ...) or the name of
            any DINOv3 or DINOv2 ViT of timm, with or without its tag.
        pretrained: Whether `load_pretrained` fills the ViT; False trains it from scratch.
        checkpoint_path: File for `load_pretrained`; without one it asks timm's hub.
        out_channels: Width of each map.
        feat_strides: Strides of the maps: (8, 16, 32) or (4, 8, 16, 32).
        freeze_backbone: The ViT starts frozen and no stage is meant to release it.
        freeze_backbone_epochs: Epochs for which the ViT is frozen at first; read by the training plan.
        num_interactions: Runs that the ViT's blocks are divided into.
        prior_channels: Width of the first convolutions on the picture.
        embed_dim: Width of the ViT instead of the named model's; from scratch only, as the next three.
        depth: Number of blocks instead of the named model's.
        num_heads: Attention heads instead of the named model's; the adapter has as many.
        layer_scale: First value of the residual gains instead of DINO's 1e-5.
        gradient_checkpointing: Keep the input alone of each block, injector and extractor in training and
            compute it anew for its gradients: far less memory for a third more work.

    Attributes:
        levels: Width and stride of each map.
        image_mean: Mean that the ViT's pictures are normalised with, of RGB in [0, 1].
        image_std: Standard deviation, likewise.

    Raises:
        ValueError: A knob outside what is allowed.
    """

    def __init__(
        self,
        *,
        model_name: str = "dinov3_small",
        pretrained: bool = True,
        checkpoint_path: str | None = None,
        out_channels: tuple[int, ...] = (256, 256, 256),
        feat_strides: tuple[int, ...] = STRIDES,
        freeze_backbone: bool = False,
        freeze_backbone_epochs: int = 0,
        num_interactions: int = 4,
        prior_channels: int = 64,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        layer_scale: float | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        shape = ViTShape(embed_dim, depth, num_heads, layer_scale)
        _check(tuple(feat_strides), tuple(out_channels), prior_channels)
        check_knobs("DinoAdapter", freeze_backbone_epochs, shape if pretrained else ViTShape())
        self.model_name = model_name
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.freeze_backbone = freeze_backbone
        self.freeze_backbone_epochs = freeze_backbone_epochs
        self.gradient_checkpointing = gradient_checkpointing

        build = build_dinov2 if is_dinov2(model_name) else build_vit
        self.vit: ViT = build(model_name, shape)
        self.spans = _spans(self.num_blocks, num_interactions)
        self.levels = tuple(Level(c, stride) for c, stride in zip(out_channels, feat_strides, strict=True))
        self.image_mean, self.image_std = image_statistics(self.vit)

        dim, heads = self.vit.embed_dim, cast(Any, self.vit.blocks[0]).attn.num_heads
        self.prior = SpatialPrior(dim, stem_channels=prior_channels, strides=tuple(feat_strides))
        self.level_embed = nn.Parameter(torch.randn(len(STRIDES), dim))
        self.injectors = nn.ModuleList(Injector(dim, heads, len(STRIDES)) for _ in self.spans)
        counts = [1] * (num_interactions - 1) + [LAST_EXTRACTORS]
        self.extractors = nn.ModuleList(
            nn.ModuleList(Extractor(dim, heads) for _ in range(count)) for count in counts
        )
        has_p4 = len(self.levels) > len(STRIDES)
        self.enlarge = nn.ConvTranspose2d(dim, dim, 2, stride=2) if has_p4 else None
        self.projections = nn.ModuleList(ConvNorm(dim, level.channels, 1) for level in self.levels)
        self.set_trainable_blocks(0 if freeze_backbone else None)

    @property
    def full_depth(self) -> int:
        """Blocks of the named model: all are kept."""
        return self.num_blocks

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The pyramid of a batch.

        Args:
            images: [B, 3, H, W] normalised by `image_mean` and `image_std`, of any size; the adapter pads it
                to a multiple of 32 with its last row and column, and crops the maps.

        Returns:
            A map [B, C, ceil(H / stride), ceil(W / stride)] for each of `levels`.
        """
        padded, _ = pad_to_multiple(images, STRIDES[-1])
        *quarter, p8, p16, p32 = self.prior(padded)
        pyramid, shapes_hw = flatten_maps((p8, p16, p32))
        codes = [code.expand(h * w, -1) for code, (h, w) in zip(self.level_embed, shapes_hw, strict=True)]
        grid = make_grid(shapes_hw, images.device)
        pyramid, seen = self._interact(padded, pyramid + torch.cat(codes), grid)
        maps = split_maps(pyramid, shapes_hw)
        if self.enlarge is not None:
            maps = [quarter[0] + self.enlarge(maps[0]), *maps]
        height, width = images.shape[-2:]
        outputs = []
        for x, of_vit, project, level in zip(maps, seen, self.projections, self.levels, strict=True):
            resized = F.interpolate(of_vit, size=x.shape[-2:], mode="bilinear", align_corners=False)
            rows, columns = -(-height // level.stride), -(-width // level.stride)
            outputs.append(project(x + resized)[..., :rows, :columns])
        return tuple(outputs)

    def _interact(self, images: Tensor, pyramid: Tensor, grid: Grid) -> tuple[Tensor, list[Tensor]]:
        """Runs the ViT's blocks with the interactions between them.

        Args:
            images: [B, 3, H, W], H and W multiples of 32.
            pyramid: [B, S, D] tokens of the convolutional pyramid.
            grid: Where they lie.

        Returns:
            The pyramid's tokens after all interactions, and the ViT's map [B, D, H / 16, W / 16] for each of
            `levels`: that after the last interaction for the coarsest, the one before for the next.
        """
        tokens, positions, grid_hw = self._embedded(images)
        patch_grid = make_grid((grid_hw,), images.device)
        num_prefix = self.vit.num_prefix_tokens
        after = []
        for span, injector, extractors in zip(self.spans, self.injectors, self.extractors, strict=True):
            patches = self._run(injector, tokens[:, num_prefix:], patch_grid, pyramid, grid)
            tokens = torch.cat((tokens[:, :num_prefix], patches), 1)
            tokens = run_blocks(self.vit, *span, tokens, positions)
            for extractor in cast(nn.ModuleList, extractors):
                pyramid = self._run(extractor, pyramid, grid, tokens[:, num_prefix:], patch_grid)
            after.append(tokens)
        first = len(after) - len(self.levels)
        taken = [max(first + i, 0) for i in range(len(self.levels))]
        maps = {
            i: split_maps(self.vit.norm(after[i])[:, num_prefix:], (grid_hw,))[0] for i in sorted(set(taken))
        }
        return pyramid, [maps[i] for i in taken]

    def _embedded(self, images: Tensor) -> Embedded:
        if isinstance(self.vit, Eva):
            return embed_patches(self.vit, images)
        return embed_dinov2(self.vit, images)

    def _run(self, part: nn.Module, *inputs: Tensor | Grid) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return cast(Tensor, checkpoint(part, *inputs, use_reentrant=False))
        return cast(Tensor, part(*inputs))


def _check(strides: tuple[int, ...], channels: tuple[int, ...], width: int) -> None:
    if strides not in (STRIDES, STRIDES_WITH_4):
        raise ValueError(f"DinoAdapter.feat_strides: {strides}; allowed: {STRIDES} or {STRIDES_WITH_4}.")
    if len(channels) != len(strides) or min(channels) < 1:
        raise ValueError(
            f"DinoAdapter.out_channels: {channels}; a width above 0 for each of feat_strides {strides}."
        )
    if width < 1:
        raise ValueError(f"DinoAdapter.prior_channels: {width}; above 0.")


def _spans(depth: int, count: int) -> tuple[tuple[int, int], ...]:
    """`depth` blocks in `count` runs of equal length, as far as they divide, as (first, after the last)."""
    if not 1 <= count <= depth:
        raise ValueError(f"DinoAdapter.num_interactions: {count}; this ViT has {depth} blocks: 1 to {depth}.")
    edges = [i * depth // count for i in range(count + 1)]
    return tuple(zip(edges[:-1], edges[1:], strict=True))
