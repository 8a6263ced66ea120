"""Gives the tensors of any DINOv3 ViT checkpoint the names that timm's ViT has for them.

The styles are known by their keys: Meta's own files, timm's, Hugging Face's (`layer.N` and `model.layer.N`),
and each of them inside a larger model's checkpoint, where every key of the ViT has one prefix.

Legend: D embedding width.
"""

import re
from collections.abc import Mapping

import torch
from timm.models.eva import Eva
from torch import Tensor

from .vit import RotaryPositions
from .weight_files import tensors_of_part

# The one tensor that every style has, by which the ViT's prefix is found.
_PATCH_KEYS = ("embeddings.patch_embeddings.weight", "patch_embed.proj.weight")

_MODEL_OF_WIDTH = {384: "dinov3_small", 768: "dinov3_base", 1024: "dinov3_large", 1280: "dinov3_huge_plus"}

# Tensors that play no part in feature maps: the mask of pretraining, the norm of local crops (7B), EUPE's
# distillation heads, a classifier, and a table that Hugging Face computes anew.
_TOLERATED = re.compile(
    r"^(embeddings\.)?mask_token$|^(local_cls_norm|projectors|head|fc_norm)\.|^rope_embeddings\.inv_freq$"
)

_RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # Hugging Face
        (r"^(model\.)?layer\.(\d+)\.", r"blocks.\2."),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
        (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
        (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        # Meta
        (r"^storage_tokens$", "reg_token"),
        (r"^rope_embed\.", "rope."),
        (r"\.ls([12])\.gamma$", r".gamma_\1"),
        (r"\.mlp\.w1\.", ".mlp.fc1_g."),
        (r"\.mlp\.w2\.", ".mlp.fc1_x."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
    )
)
# timm's bias names, and what a fused or a split projection calls them.
_BIAS = re.compile(r"^(blocks\.\d+\.attn\.)(q_bias|k_bias|v_bias|[qkv]_proj\.bias|qkv\.bias|qkv\.bias_mask)$")


def convert_to_timm(state: Mapping[str, Tensor], vit: Eva, full_depth: int) -> dict[str, Tensor]:
    """The ViT of a checkpoint, named as `vit.state_dict()` names it.

    Nothing is invented but two things that the styles leave out: biases that a style does not store are
    zero, as in all released weights, and rotary periods that it does not store are the released ones (the
    formula's, rounded to bfloat16).

    Args:
        state: A flat checkpoint in any of the known styles.
        vit: The model that the weights are for.
        full_depth: Blocks that the named model has; those from `len(vit.blocks)` on are left out.

    Raises:
        ValueError: It has no DINOv3 ViT, or several, or one of another width, or trained biases that the
            model cannot hold.
    """
    named = _named(tensors_of_part(state, _PATCH_KEYS, "DINOv3 ViT"))
    _check_width(named, vit)
    biases = {name: named.pop(name) for name in list(named) if _BIAS.match(name)}
    _fuse_projections(named)
    for index in range(len(vit.blocks)):
        named.update(_biases(f"blocks.{index}.attn.", biases, vit))
    for index in range(len(vit.blocks), full_depth):
        for name in [name for name in named if name.startswith(f"blocks.{index}.")]:
            del named[name]
    if "rope.periods" not in named:
        assert isinstance(vit.rope, RotaryPositions)
        named["rope.periods"] = vit.rope.periods.to(torch.bfloat16).float()
    return named


def _check_width(named: Mapping[str, Tensor], vit: Eva) -> None:
    """Says which model the weights look like, where it is plainly another one."""
    token = named.get("cls_token")
    if token is None or token.shape == (1, 1, vit.embed_dim):
        return
    guess = _MODEL_OF_WIDTH.get(token.shape[-1])
    if guess == "dinov3_small" and "blocks.0.mlp.fc1_g.weight" in named:
        guess = "dinov3_small_plus"
    raise ValueError(
        f"cls_token is {tuple(token.shape)} there and (1, 1, {vit.embed_dim}) here"
        + (f"; it looks like {guess}." if guess else ".")
    )


def _named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    gated = any(".gate_proj." in key for key in state)
    for key, value in state.items():
        if _TOLERATED.match(key):
            continue
        name = key.replace(".mlp.up_proj.", ".mlp.fc1_x." if gated else ".mlp.fc1.")
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        named[name] = value
    return named


def _fuse_projections(named: dict[str, Tensor]) -> None:
    """Replaces the separate query, key and value weights [D, D] by one [3 * D, D], in place."""
    for key in [name for name in named if name.endswith(".attn.q_proj.weight")]:
        stem = key[: -len("q_proj.weight")]
        parts = [f"{stem}{part}_proj.weight" for part in "qkv"]
        if all(part in named for part in parts):
            named[f"{stem}qkv.weight"] = torch.cat([named.pop(part) for part in parts])


def _biases(stem: str, biases: Mapping[str, Tensor], vit: Eva) -> dict[str, Tensor]:
    """A block's query and value biases as the model wants them: both, or none.

    Raises:
        ValueError: A bias that is not zero has no place in the model.
    """
    given = {part: torch.zeros(vit.embed_dim) for part in "qkv"}
    fused = biases.get(f"{stem}qkv.bias")
    if fused is not None:
        given = dict(zip("qkv", _masked(fused, biases.get(f"{stem}qkv.bias_mask")).chunk(3), strict=True))
    for part in "qkv":
        given[part] = biases.get(f"{stem}{part}_bias", biases.get(f"{stem}{part}_proj.bias", given[part]))
    has_place = f"{stem}q_bias" in vit.state_dict()
    if given["k"].any() or (not has_place and (given["q"].any() or given["v"].any())):
        raise ValueError(
            f"{stem}* has biases that are not zero, and this ViT has "
            + ("no key bias." if has_place else "none: choose the model whose timm name ends in _qkvb.")
        )
    return {f"{stem}{part}_bias": given[part] for part in "qv"} if has_place else {}


def _masked(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Meta's qkv bias [3 * D] with its mask applied.

    The mask is NaN in a file saved before Meta's initialisation ran; then what that would have written is
    meant: 1 for queries and values, 0 for keys.
    """
    if mask is None:
        return bias
    if torch.isnan(mask).any():
        mask = torch.ones_like(bias)
        mask.chunk(3)[1].zero_()
    return bias * mask
