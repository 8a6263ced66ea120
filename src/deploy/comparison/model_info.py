"""What a model costs: its parameters by part, and the work of one forward pass.

GFLOPs count a multiply-add as two, and only matrix products and convolutions, as detection papers do. Most
papers on ViT detectors leave out the attention products (queries by keys, attention by values), because
their counter does not see them: both conventions are given here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

PARTS = ("backbone.vit", "backbone.sta", "backbone", "encoder", "decoder")
"""Prefixes of parameter names; each parameter belongs to the first that fits."""

REST = "other"

ATTENTION_OPS = ("bmm", "baddbmm")
"""Products of two activations: in these models attention alone has any (deformable attention few)."""


class Flops(NamedTuple):
    """Work of one forward pass on one picture.

    Attributes:
        total: All matrix products and convolutions.
        attention: The part of it that multiplies queries by keys and attention by values.
    """

    total: int
    attention: int


@dataclass(frozen=True)
class ModelInfo:
    """A model's costs.

    Attributes:
        train: Parameters by part of the model that trains.
        deploy: Parameters by part of the model that detects: without what serves training alone, and with
            convolutions and their normalisation made one.
        flops: Work of the deployed model on one picture.
        size_hw: (height, width) of that picture.
    """

    train: dict[str, int]
    deploy: dict[str, int]
    flops: Flops
    size_hw: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes."""
        return {
            "parameters": {
                "train": {**self.train, "total": sum(self.train.values())},
                "deploy": {**self.deploy, "total": sum(self.deploy.values())},
            },
            "size_hw": list(self.size_hw),
            "gflops": {
                "with_attention_products": self.flops.total / 1e9,
                "without_attention_products": (self.flops.total - self.flops.attention) / 1e9,
            },
        }

    def table(self) -> str:
        """The same as aligned text."""
        parts = list(dict.fromkeys([*self.train, *self.deploy]))
        rows = [(part, self.train.get(part, 0), self.deploy.get(part, 0)) for part in parts]
        rows.append(("total", sum(self.train.values()), sum(self.deploy.values())))
        lines = [f"{'parameters':<14}{'train':>14}{'deploy':>14}"]
        lines += [f"{part:<14}{train:>14,}{deploy:>14,}" for part, train, deploy in rows]
        counted = self.to_dict()["gflops"]
        height, width = self.size_hw
        lines += [
            "",
            f"GFLOPs at {height}x{width} (height x width)",
            f"{'with attention products':<28}{counted['with_attention_products']:>14.2f}",
            f"{'without attention products':<28}{counted['without_attention_products']:>14.2f}",
        ]
        return "\n".join(lines)


def parameter_table(model: nn.Module) -> dict[str, int]:
    """Parameters of each part that has any; frozen ones count too, shared ones once."""
    counts = dict.fromkeys((*PARTS, REST), 0)
    for name, parameter in model.named_parameters():
        part = next((prefix for prefix in PARTS if name.startswith(prefix + ".")), REST)
        counts[part] += parameter.numel()
    return {part: count for part, count in counts.items() if count}


def count_flops(model: nn.Module, size_hw: tuple[int, int]) -> Flops:
    """Work of one forward pass of the model, as it detects, on one picture [1, 3, H, W].

    The picture is really run, on the model's device. Fused attention is taken apart for it, so that every
    version of torch counts its products.
    """
    device = next(model.parameters()).device
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    was_training = [module for module in model.modules() if module.training]
    had_fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it runs whole layers as one op, which no counter knows
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        # where a weight needs no gradient, torch 2.10 runs some linear layers as batched products
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(torch.zeros(1, 3, *size_hw, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fast_path)
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module in was_training:
            module.training = True
    per_op: dict[Any, int] = counter.get_flop_counts()["Global"]
    attention = sum(count for op, count in per_op.items() if _name(op) in ATTENTION_OPS)
    return Flops(counter.get_total_flops(), attention)


def describe(model: nn.Module, deployed: nn.Module, size_hw: tuple[int, int]) -> ModelInfo:
    """The costs of a model.

    Args:
        model: As it trains.
        deployed: As it detects; images [1, 3, H, W] in.
        size_hw: (height, width) to count the work at.
    """
    return ModelInfo(
        parameter_table(model), parameter_table(deployed), count_flops(deployed, size_hw), size_hw
    )


def _name(op: Any) -> str:
    """`aten.bmm.default` and `aten.bmm` are both `bmm`."""
    return str(op).split(".")[1] if "." in str(op) else str(op)
