"""Half-precision weights for forward and backward; the optimizer's stay in float32 (opt level O2)."""

import copy
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import world_size
from ..nn.layers import SelfAttention

PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd, SelfAttention)
OUTSIDE_AUTOCAST = ("query_pos_head",)  # computes in float32, as `DFINETransformer._position` says


class LowPrecisionTwin:
    """A copy of a model that computes with weights of another type.

    What autocast would cast at each use (weights and biases of linear layers, convolutions and attention) is
    cast once an update instead, so that the losses are autocast's to the bit. Everything else, norms, gains,
    embeddings and all buffers, is the model's own tensor and not a copy: its gradients and running statistics
    arrive at the model by themselves.

    The twin keeps the flags and modes that the model has when it is made.

    Args:
        model: Owns the float32 weights, the masters, that are optimised, averaged and saved. Where there are
            several ranks it takes over the main one's, as DDP does with what it wraps.
        dtype: Type of the twin's weights.

    Attributes:
        module: What to call under autocast.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._masters: list[Tensor] = list(dict.fromkeys(_weights_of_products(model)))
        if world_size() > 1:
            for master in self._masters:
                dist.broadcast(master.detach(), 0)
        self._weights: list[Tensor] = [
            nn.Parameter(m.detach().to(dtype), m.requires_grad) for m in self._masters
        ]
        kept = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        cast = {id(m): weight for m, weight in zip(self._masters, self._weights, strict=True)}
        self.module: nn.Module = copy.deepcopy(model, {**kept, **cast})

    @torch.no_grad()
    def hand_over_gradients(self) -> None:
        """Add the twin's gradients to the masters', in float32, and leave the twin without any."""
        both = zip(self._masters, self._weights, strict=True)
        found = [(master, weight, weight.grad) for master, weight in both if weight.grad is not None]
        grads: list[Tensor] = [torch.empty_like(master) for master, _, _ in found]
        if found:
            torch._foreach_copy_(grads, [grad for _, _, grad in found])
        for (master, weight, _), grad in zip(found, grads, strict=True):
            master.grad = grad if master.grad is None else master.grad + grad
            weight.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the masters' values, rounded to nearest."""
        if self._weights:
            torch._foreach_copy_(self._weights, self._masters)


def _weights_of_products(model: nn.Module) -> Iterator[nn.Parameter]:
    for name, module in model.named_modules():
        if isinstance(module, PRODUCTS) and not set(name.split(".")) & set(OUTSIDE_AUTOCAST):
            yield from module.parameters(recurse=False)
