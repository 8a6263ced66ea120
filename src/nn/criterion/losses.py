"""The losses of D-FINE on stacked outputs: each function gives one sum for every output, not yet normalised.

Legend: O outputs, S queries of the batch, C classes, N pairs of prediction and object, K students (layers
that learn from the last one), R bins of an edge distribution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dense import Distillation, NegativeFocal


def varifocal_loss(logits: Tensor, picks: Tensor, ious: Tensor, alpha: float, gamma: float) -> Tensor:
    """VarifocalNet's loss (Zhang et al. 2021, eq. 2) with the IoU as the score to reach.

    A cross-entropy over all queries and classes. The class of a matched query has its IoU as target and as
    weight; everything else has target 0 and weight alpha * p^gamma.

    Args:
        logits: [O, S, C].
        picks: [O, N] positions of the matched queries' true classes in the S * C logits of all outputs, flat;
            unique.
        ious: [O, N] IoU of the matched boxes, without gradient.
        alpha: Weight of the negative terms.
        gamma: Exponent of the negative terms.

    Returns:
        [O] sums.
    """
    everywhere: Tensor = NegativeFocal.apply(logits, alpha, gamma)
    x = logits.flatten().index_select(0, picks.flatten()).view_as(picks)
    surprise = F.softplus(x)  # -log(1 - p)
    taken_back = x.detach().sigmoid().pow(gamma).mul(alpha) * surprise
    # weight * BCE(x, target) with both the IoU, instead of the negative term
    there = ious * (surprise - ious * x)
    return everywhere + (there - taken_back).sum(1)


def matchability_aware_loss(logits: Tensor, picks: Tensor, ious: Tensor, gamma: float) -> Tensor:
    """DEIM's matchability-aware class loss (Huang et al. 2025, arXiv 2412.04234), with the match's IoU as q.

    The class of a matched query costs -q^gamma log(p) - (1 - q^gamma) log(1 - p), everything else
    -p^gamma log(1 - p): unlike in VFL, a match of low quality weighs as much as one of high quality.

    Args:
        logits: [O, S, C].
        picks: [O, N] positions of the matched queries' true classes in the S * C logits of all outputs, flat;
            unique.
        ious: [O, N] IoU of the matched boxes, without gradient.
        gamma: Exponent of the score to reach and of the negative terms.

    Returns:
        [O] sums.
    """
    everywhere: Tensor = NegativeFocal.apply(logits, 1.0, gamma)
    x = logits.flatten().index_select(0, picks.flatten()).view_as(picks)
    surprise = F.softplus(x)  # -log(1 - p)
    taken_back = x.detach().sigmoid().pow(gamma) * surprise
    there = surprise - ious.pow(gamma) * x
    return everywhere + (there - taken_back).sum(1)


def fine_grained_loss(
    corner_logits: Tensor, left: Tensor, weight_left: Tensor, weight_right: Tensor, ious: Tensor
) -> Tensor:
    """Fine-grained localisation loss (D-FINE eq. 4): both bins beside the true distance, weighted by the IoU.

    Args:
        corner_logits: [O, N, 4, R] of the matched queries.
        left: [O, N, 4] index of the bin on the left of the true distance.
        weight_left: [O, N, 4] weight of that bin.
        weight_right: [O, N, 4] weight of its right neighbour.
        ious: [O, N] IoU of the matched boxes, without gradient.

    Returns:
        [O] sums over pairs and edges.
    """
    log_probabilities = F.log_softmax(corner_logits, -1)
    both = log_probabilities.gather(-1, torch.stack((left, left + 1), -1))
    return -(both * torch.stack((weight_left, weight_right), -1)).sum((-1, -2)).mul(ious).sum(1)


def distillation_loss(corner_logits: Tensor, importance: Tensor, temperature: float) -> Tensor:
    """Decoupled distillation focal loss (D-FINE eq. 6): the last layer's edge distributions teach the others.

    Args:
        corner_logits: [K + 1, S, 4, R] of all layers, the teacher last.
        importance: [K, S] weight of each query, without gradient.
        temperature: Softens both distributions; the loss is multiplied by its square.

    Returns:
        [K] weighted sums of the divergence KL(teacher || student) over queries and edges.
    """
    sums: Tensor = Distillation.apply(corner_logits, importance, temperature)
    return sums
