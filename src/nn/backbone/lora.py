"""LoRA (Hu et al. 2021) on a ViT's attention, through peft: low-rank factors learn in place of weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from timm.models.eva import Eva
from torch import Tensor

from ...core.bounds import Count, PositiveFloat

_BASE = ".base_layer."  # what peft puts before the names of a layer that it gives factors
_FACTOR = ".lora_"


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Factors beside every block's `attn.qkv` and `attn.proj`.

    Attributes:
        rank: Width of the factors.
        alpha: Their product is multiplied by alpha / rank.
    """

    rank: Count = 8
    alpha: PositiveFloat = 16.0


def add_lora(vit: Eva, lora: LoRA) -> None:
    """Give `vit` factors, in place; they start so that its outputs are unchanged.

    A layer `x` then keeps its own tensors as `x.base_layer.weight`, and has `x.lora_A.default.weight`
    [rank, in] and `x.lora_B.default.weight` [out, rank], which is zero at first.

    Raises:
        ValueError: peft is not installed, or this ViT's attention does not call its layers.
    """
    if any(name.endswith(".q_bias") for name, _ in vit.named_parameters()):
        # timm then reads qkv.weight itself, and factors around the layer would do nothing
        raise ValueError(
            "DINOv3Backbone.lora: it does not reach the attention of a model with query and value biases; "
            "use the model whose timm name has no _qkvb at its end."
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            "DINOv3Backbone.lora needs the package peft, which is not installed: "
            "`pip install -r requirements-lora.txt`."
        ) from error
    targets = ["attn.qkv", "attn.proj"]
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)  # type: ignore[arg-type]
    inject_adapter_in_model(config, vit)


def merge_lora(vit: Eva) -> None:
    """Add the factors' products to the weights that they stand beside and leave the factors out, in place."""
    for module in vit.modules():
        if hasattr(module, "lora_A"):
            cast(Any, module).merge()
    leave_out_factors(vit)


def leave_out_factors(vit: Eva) -> None:
    """Put every layer that factors stand beside in its own place again, in place; `vit` needs LoRA."""
    for parent in list(vit.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A"):
                setattr(parent, name, cast(Any, child).base_layer)
    del vit.peft_config


def hold_base_weights(vit: Eva) -> None:
    """Lets nothing of `vit` learn but factors; those that are held still stay so."""
    for name, parameter in vit.named_parameters():
        if not is_factor(name):
            parameter.requires_grad_(False)


def is_factor(name: str) -> bool:
    """Whether this is the name of one of LoRA's own tensors."""
    return _FACTOR in name


def under_base_layers(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with every tensor `x.weight` that `target` calls `x.base_layer.weight` named so.

    Args:
        state: Weights of a model that may have been built without LoRA.
        target: The state dict of one that may have it.
    """
    moved = {name.replace(_BASE, "."): name for name in target if _BASE in name}
    return {moved.get(name, name): tensor for name, tensor in state.items()}
