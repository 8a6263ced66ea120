"""Random weights that behave like trained ones."""

import torch


def enliven(model: torch.nn.Module, score_scale: float = 1.0) -> None:
    """Give random weights what trained ones have: varied scores, and heads that do something.

    Fresh heads of boxes, offsets and gates are zero: half of the graph would not show in the outputs.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "score_head" in name:
                parameter.copy_(score_scale * noise)
            elif name.startswith("decoder."):
                parameter.add_(0.5 * noise / parameter.shape[-1] ** 0.5)
