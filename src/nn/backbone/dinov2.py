"""DINOv2's ViT from timm on patches of 16 pixels, and the names of its released weights.

DINOv2 was trained on patches of 14 pixels, whose grid fits no level of a pyramid; its kernel is resampled to
16, and its learnt positions, 37 x 37 of them, are stretched to the grid of the input.

Legend: B batch, D embedding width, P class and register tokens, h and w patches along each side.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .vit import Embedded, ViTShape
from .weight_files import tensors_of_part

_SIZES = ("small", "base", "large", "giant")
DINOV2_ALIASES = {f"dinov2_{size}": f"vit_{size}_patch14_dinov2" for size in _SIZES} | {
    f"dinov2_{size}_reg4": f"vit_{size}_patch14_reg4_dinov2" for size in _SIZES
}
PATCH = 16
GRID = 37  # positions along each side in the released files: 518 / 14

# What only pretraining used, and a classifier.
_TOLERATED = re.compile(r"^mask_token$|^head\.")


def is_dinov2(model_name: str) -> bool:
    """Whether the name is meant for a ViT of this file."""
    return "dinov2" in model_name


def build_dinov2(model_name: str, shape: ViTShape) -> VisionTransformer:
    """A ViT with random weights; tokens go [class, registers if any, patches], the input may have any size.

    Raises:
        ValueError: Unknown name, or a shape that no ViT can have.
    """
    name = DINOV2_ALIASES.get(model_name, model_name)
    known = timm.list_models("vit_*dinov2*") + timm.list_pretrained("vit_*dinov2*")
    if name not in known:
        allowed = ", ".join([*DINOV2_ALIASES, *known])
        raise ValueError(f"model_name: {model_name!r} is no DINOv2 ViT that timm knows; allowed: {allowed}.")
    # Pooling and head play no part in maps; 0 classes leaves no head behind.
    sizes = {"patch_size": PATCH, "img_size": PATCH * GRID, **shape.options()}
    try:
        vit = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **sizes)
    except AssertionError as error:  # timm's word for a width that the heads cannot share
        raise ValueError(f"{shape.given()}: {error}.") from error
    assert isinstance(vit, VisionTransformer), "timm builds every DINOv2 ViT of this class"
    return vit


def embed_dinov2(vit: VisionTransformer, images: Tensor) -> Embedded:
    """The tokens of `images` [B, 3, 16 * h, 16 * w], normalised, with their positions added."""
    patches = cast(Tensor, cast(Any, vit.patch_embed).proj(images))  # [B, D, h, w]
    batch, _, height, width = patches.shape
    before: list[Tensor] = [token for token in (vit.cls_token, vit.reg_token) if token is not None]
    prefix = torch.cat(before, 1).expand(batch, -1, -1)
    num_placed = 0 if vit.no_embed_class else prefix.shape[1]  # prefix tokens with a position of their own
    # The models with registers were trained with positions stretched with antialiasing, the others without.
    positions = resample_abs_pos_embed(
        cast(Tensor, vit.pos_embed),
        new_size=[height, width],
        old_size=[GRID, GRID],
        num_prefix_tokens=num_placed,
        antialias=vit.reg_token is not None,
    )
    tokens = patches.flatten(2).transpose(1, 2)
    if num_placed:
        tokens = torch.cat((prefix, tokens), 1) + positions
    else:
        tokens = torch.cat((prefix, tokens + positions), 1)
    return Embedded(tokens, None, (height, width))


def convert_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ViT of a checkpoint of Meta's or timm's, with timm's names and on patches of 16.

    The kernel is resampled by the pseudo-inverse of bicubic enlargement (FlexiViT, section 3.4), so that a
    patch enlarged from 14 to 16 pixels gives the token that it gave before.

    Args:
        state: A flat checkpoint, the ViT's keys under any one prefix.

    Raises:
        ValueError: It has no DINOv2 ViT, or several.
    """
    landmarks = ("patch_embed.proj.weight",)
    named = {
        re.sub(r"\.mlp\.w3\.", ".mlp.fc2.", re.sub(r"\.mlp\.w12\.", ".mlp.fc1.", name)): value
        for name, value in tensors_of_part(state, landmarks, "DINOv2 ViT").items()
        if not _TOLERATED.match(name)
    }
    registers = named.pop("register_tokens", None)
    if registers is not None:  # in timm the position of the class token is part of it
        positions = named["pos_embed"]
        named["reg_token"] = registers
        named["cls_token"] = named["cls_token"] + positions[:, :1]
        named["pos_embed"] = positions[:, 1:]
    kernel = named["patch_embed.proj.weight"]
    if kernel.dim() == 4:
        named["patch_embed.proj.weight"] = resample_patch_embed(kernel, [PATCH, PATCH])
    return named
