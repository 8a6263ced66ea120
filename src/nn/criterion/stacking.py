"""A step's outputs in one tensor of each kind, so that all layers are matched and judged at once.

Legend: B batch, Q queries of a picture, S = B * Q, C classes, L decoder layers, O outputs, R bins of an edge
distribution.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...structures import LayerOutput, TrainOutput


class Stacked(NamedTuple):
    """Outputs of one family, the matching queries' or the denoising queries', float32.

    Attributes:
        logits: [O, S, C].
        boxes: [O, S, 4] cxcywh.
        corners: [L, S, 4, R] of the first L outputs, the decoder layers.
        references: [L, S, 4] cxcywh, without gradient.
        suffixes: How the names of the O outputs' losses end.
    """

    logits: Tensor
    boxes: Tensor
    corners: Tensor
    references: Tensor
    suffixes: tuple[str, ...]


def stack_matching(output: TrainOutput) -> Stacked:
    """The decoder layers (the last one last), pre and encoder, of the matching queries."""
    aux = [f"_aux_{index}" for index in range(len(output.layers) - 1)]
    return _stack(output.layers, (output.pre, output.encoder), (*aux, "", "_pre", "_enc_0"))


def stack_denoising(output: TrainOutput) -> Stacked | None:
    """The decoder layers and pre, of the denoising queries; None where denoising is switched off."""
    if output.denoising is None:
        return None
    layers = output.denoising.layers
    names = [f"_dn_{index}" for index in range(len(layers))]
    return _stack(layers, (output.denoising.pre,), (*names, "_dn_pre"))


def _stack(
    layers: tuple[LayerOutput, ...], others: tuple[LayerOutput, ...], suffixes: tuple[str, ...]
) -> Stacked:
    corners = [layer.corners for layer in layers if layer.corners is not None]
    references = [layer.reference_boxes for layer in layers if layer.reference_boxes is not None]
    assert len(corners) == len(references) == len(layers), "a decoder layer came without edge distributions"
    num_layers, num_outputs = len(layers), len(suffixes)
    # [B, Q, X] each -> [O * B, Q, X] -> [O, S, X]
    logits = torch.cat([out.logits for out in (*layers, *others)]).float()
    boxes = torch.cat([out.boxes_cxcywh for out in (*layers, *others)]).float()
    edges = torch.cat(corners).float()
    return Stacked(
        logits=logits.view(num_outputs, -1, logits.shape[-1]),
        boxes=boxes.view(num_outputs, -1, 4),
        corners=edges.view(num_layers, boxes.shape[0] // num_outputs * boxes.shape[1], 4, -1),
        references=torch.cat(references).detach().float().view(num_layers, -1, 4),
        suffixes=suffixes,
    )
