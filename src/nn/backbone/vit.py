"""Builds a DINOv3-shaped Vision Transformer from timm by name and reads feature maps out of it.

Legend: B batch, D embedding width, d width of one head, h and w patches along each side.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .windows import Windows

ViT = Eva | VisionTransformer  # DINOv3's class in timm, and DINOv2's

MODEL_ALIASES = {
    "dinov3_small": "vit_small_patch16_dinov3",
    "dinov3_small_plus": "vit_small_plus_patch16_dinov3",
    "dinov3_base": "vit_base_patch16_dinov3",
    "dinov3_large": "vit_large_patch16_dinov3",
    "dinov3_huge_plus": "vit_huge_plus_patch16_dinov3",
}


class ViTShape(NamedTuple):
    """A ViT's size where it departs from the named model's; None keeps the named model's value.

    Attributes:
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads; each of a DINOv3 is a multiple of 4 wide, since its rotary code has two
            axes of pairs.
        layer_scale: First value of the residual branches' gains. DINOv3's own 1e-5 suits long pretraining;
            a short training from scratch hardly uses its blocks with it.
    """

    embed_dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    layer_scale: float | None = None

    def given(self) -> dict[str, float]:
        """The values that are not None, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def options(self) -> dict[str, Any]:
        """The same under timm's names.

        Raises:
            ValueError: A value that no ViT can have.
        """
        options: dict[str, Any] = self.given()
        if min([1, *options.values()]) <= 0:
            raise ValueError(f"{self.given()}: a ViT's sizes and its layer scale are above 0.")
        if "layer_scale" in options:
            options["init_values"] = options.pop("layer_scale")
        return options


class RotaryPositions(nn.Module):
    """DINOv3's axial rotary position code: a fixed table for any grid, made on the module's own device.

    It is timm's `RotaryEmbeddingDinoV3` without train-time augmentation, and with the periods in the state
    dict: released weights were trained with periods rounded to bfloat16, and the exact ones change the
    features by about 2e-4 of their size.

    Args:
        periods: [d / 4] float32, in units of half the picture's side.
    """

    periods: Tensor

    def __init__(self, periods: Tensor) -> None:
        super().__init__()
        self.register_buffer("periods", periods.detach().clone())

    def get_embed(self, shape: tuple[int, int]) -> Tensor:
        """Sines and cosines [h * w, 2 * d] float32 for a grid (h, w); the name is what timm calls."""
        axes = [
            2.0 * ((torch.arange(size, device=self.periods.device, dtype=torch.float32) + 0.5) / size) - 1.0
            for size in shape
        ]
        centres = torch.stack(torch.meshgrid(axes, indexing="ij"), -1).flatten(0, 1)  # [h * w, 2], y before x
        angles = (2 * math.pi * centres[:, :, None] / self.periods).flatten(1).tile(2)  # [h * w, d]
        return torch.cat((angles.sin(), angles.cos()), -1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RotaryPositions":
        exact = self.periods
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # untyped in some torch versions
        if self.periods.dtype != torch.float32:  # half a model's precision, not its positions'
            self.periods = exact.to(self.periods.device)
        return self


def resolve_model_name(model_name: str) -> str:
    """The timm name behind an alias of ours or a timm name with or without its tag.

    Raises:
        ValueError: timm has no DINOv3 ViT of this name.
    """
    name = MODEL_ALIASES.get(model_name, model_name)
    known = timm.list_models("vit_*dinov3*") + timm.list_pretrained("vit_*dinov3*")
    if name not in known:
        allowed = ", ".join([*MODEL_ALIASES, *known])
        raise ValueError(f"model_name: {model_name!r} is no DINOv3 ViT that timm knows; allowed: {allowed}.")
    return name


def build_vit(model_name: str, shape: ViTShape) -> Eva:
    """A ViT with random weights; tokens go [class, registers, patches], and the input may have any size.

    Raises:
        ValueError: Unknown name, or a shape that no DINOv3 ViT can have.
    """
    name = resolve_model_name(model_name)
    # Pooling and head play no part in maps; 0 classes leaves no head behind.
    vit = timm.create_model(
        name, pretrained=False, num_classes=0, global_pool="", dynamic_img_size=True, **shape.options()
    )
    assert isinstance(vit, Eva), "timm builds every DINOv3 ViT of its Eva class"
    heads = cast(Any, vit.blocks[0]).attn.num_heads
    if vit.embed_dim % (4 * heads):
        raise ValueError(f"embed_dim {vit.embed_dim}, {heads} heads: each head must be a multiple of 4 wide.")
    vit.rope = RotaryPositions(cast(Tensor, vit.rope.periods))
    return vit


def image_statistics(vit: ViT) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of RGB in [0, 1] with which the named weights were trained."""
    config = cast(dict[str, Any], vit.pretrained_cfg)
    return tuple(config["mean"]), tuple(config["std"])


def published_as(vit: ViT) -> tuple[str, str]:
    """The named weights' repository on Hugging Face ("" for none), and the tag of their training data."""
    config = cast(dict[str, Any], vit.pretrained_cfg)
    return str(config.get("hf_hub_id") or ""), str(config.get("tag") or "")


class Embedded(NamedTuple):
    """A picture as the first block takes it.

    Attributes:
        tokens: [B, P + h * w, D], P class and register tokens first.
        positions: Rotary table for the blocks; None where positions are in the tokens.
        grid_hw: (h, w).
    """

    tokens: Tensor
    positions: Tensor | None
    grid_hw: tuple[int, int]


def embed_patches(vit: Eva, images: Tensor) -> Embedded:
    """The tokens of `images` [B, 3, 16 * h, 16 * w], normalised, and the rotary table [h * w, 2 * d]."""
    # Not the whole module: its messages hold the size, for which torch.compile makes a graph of each size.
    patches = cast(Tensor, cast(Any, vit.patch_embed).proj(images))  # [B, D, h, w]
    batch, _, height, width = patches.shape
    prefix = torch.cat((cast(Tensor, vit.cls_token), cast(Tensor, vit.reg_token)), 1).expand(batch, -1, -1)
    tokens = torch.cat((prefix, patches.flatten(2).transpose(1, 2)), 1)
    positions = cast(RotaryPositions, vit.rope).get_embed((height, width))
    return Embedded(tokens, positions, (height, width))


def extract_maps(vit: Eva, images: Tensor, taps: tuple[int, ...], num_windows: int = 1) -> tuple[Tensor, ...]:
    """Patch tokens after the blocks `taps` and the final norm, as maps.

    Args:
        vit: What `build_vit` gives.
        images: [B, 3, 16 * h, 16 * w] normalised; h and w are multiples of `num_windows`.
        taps: Indices of blocks, ascending.
        num_windows: Above 1, blocks that are not tapped attend inside so many windows along each side, see
            `windows.py`.

    Returns:
        One [B, D, h, w] map for each tap; class and register tokens are left out.
    """
    tokens, positions, grid_hw = embed_patches(vit, images)
    batch, num_prefix = tokens.shape[0], vit.num_prefix_tokens
    windows = Windows(num_windows, grid_hw, num_prefix)
    assert positions is not None, "a DINOv3 ViT has a rotary table"
    window_positions = windows.split_positions(positions, batch) if num_windows > 1 else positions

    maps = []
    start = 0
    for tap in taps:
        if num_windows > 1 and tap > start:
            tokens = windows.join(run_blocks(vit, start, tap, windows.split(tokens), window_positions))
            start = tap
        tokens = run_blocks(vit, start, tap + 1, tokens, positions)
        patches = vit.norm(tokens)[:, num_prefix:].transpose(1, 2)
        maps.append(patches.reshape(batch, -1, *grid_hw).contiguous())
        start = tap + 1
    return tuple(maps)


def run_blocks(vit: ViT, start: int, stop: int, tokens: Tensor, positions: Tensor | None) -> Tensor:
    """The tokens after the blocks `start` to `stop - 1`, given those before, of the same shape."""
    rotary = () if positions is None else (positions,)
    for block in vit.blocks[start:stop]:
        if vit.grad_checkpointing:
            tokens = cast(Tensor, checkpoint(block, tokens, *rotary, use_reentrant=False))
        else:
            tokens = block(tokens, *rotary)
    return tokens
