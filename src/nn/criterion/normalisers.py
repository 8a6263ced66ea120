"""What the sums of a step's losses are divided by, averaged over its parts in one all-reduce."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...distributed import mean_over_ranks, world_size

EDGES = 4
BATCH_OF_REFERENCE = 8  # the distillation's balance is stated for a batch of 8 pictures


class Normalisers(NamedTuple):
    """For one family of outputs, float32 scalars.

    Attributes:
        objects: Divides the class loss; at least one object's share.
        boxes: Divides the losses of boxes and edges; at least one pair's share.
        matched: Multiplies the distillation of an edge whose query stands for an object.
        rest: Multiplies the distillation of any other edge.
    """

    objects: Tensor
    boxes: Tensor
    matched: Tensor
    rest: Tensor


def normalisers(counts: Tensor, step_counts: Tensor | None = None) -> tuple[Normalisers, Normalisers]:
    """The normalisers of the matching part and of the denoising part.

    DDF weighs the mean over matched edges against the mean over the others like the square roots of their
    numbers in the matching part (per picture, times 8), also in the denoising part. A step's pictures may be
    spread over ranks and micro-batches, its parts. Every number is the mean over the parts, so that the mean
    of the parts' losses is the loss of the whole batch; what must not be below 1 for the whole batch must not
    be below 1 / parts here.

    Args:
        counts: [8] float32 of this batch, as `pairs.StepPairs` describes them.
        step_counts: [M, 8] of this rank's M micro-batches, this one among them, where they are one step's.
    """
    num_parts = world_size()
    if step_counts is not None:
        counts, num_parts = step_counts.mean(0), num_parts * len(step_counts)
    counts = mean_over_ranks(counts)
    pictures, objects, groups, noised = counts[:4].unbind()
    edges = EDGES * counts[4:].view(2, 2)  # part, matched or not
    roots = (edges[0] * (BATCH_OF_REFERENCE / pictures)).sqrt()
    # where no query of a part is matched, or every one, a sum is 0 and may be divided by anything
    shares = roots / roots.sum() / edges.clamp(min=1e-6)
    own, of_noised = shares.unbind()
    copies = torch.maximum(noised, groups / num_parts)
    least = 1 / num_parts
    return (
        Normalisers(objects.clamp(min=least), counts[4].clamp(min=least), *own.unbind()),
        Normalisers(copies, copies, *of_noised.unbind()),
    )
