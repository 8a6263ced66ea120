"""What the sums of a step's losses are divided by, averaged over the ranks in one all-reduce."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...distributed import mean_over_ranks

EDGES = 4
BATCH_OF_REFERENCE = 8  # the distillation's balance is stated for a batch of 8 pictures


class Normalisers(NamedTuple):
    """For one family of outputs, float32 scalars.

    Attributes:
        objects: Divides the class loss; at least 1.
        boxes: Divides the losses of boxes and edges; at least 1.
        matched: Multiplies the distillation of an edge whose query stands for an object.
        rest: Multiplies the distillation of any other edge.
    """

    objects: Tensor
    boxes: Tensor
    matched: Tensor
    rest: Tensor


def normalisers(counts: Tensor) -> tuple[Normalisers, Normalisers]:
    """The normalisers of the matching part and of the denoising part.

    DDF weighs the mean over matched edges against the mean over the others like the square roots of their
    numbers in the matching part (per picture, times 8), also in the denoising part. Every number is the mean
    over the ranks, so that the mean of the ranks' losses is the loss of their whole batch.

    Args:
        counts: [8] float32 of this rank, as `pairs.StepPairs` describes them.
    """
    counts = mean_over_ranks(counts)
    pictures, objects, groups, noised = counts[:4].unbind()
    edges = EDGES * counts[4:].view(2, 2)  # part, matched or not
    roots = (edges[0] * (BATCH_OF_REFERENCE / pictures)).sqrt()
    # where no query of a part is matched, or every one, a sum is 0 and may be divided by anything
    shares = roots / roots.sum() / edges.clamp(min=1e-6)
    own, of_noised = shares.unbind()
    return (
        Normalisers(objects.clamp(min=1), counts[4].clamp(min=1), *own.unbind()),
        Normalisers(torch.maximum(noised, groups), torch.maximum(noised, groups), *of_noised.unbind()),
    )
