"""Gradient checkpointing of parts with batch norms: computed twice in a step, counted once."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# The base of BatchNorm2d and SyncBatchNorm, for which torch has no public name.
_BatchNorm = nn.modules.batchnorm._BatchNorm


def checkpointed(part: nn.Module, x: Tensor) -> Tensor:
    """`part(x)`, of which autograd keeps `x` alone and computes the rest anew for the gradients."""
    made = checkpoint(
        part, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_at_rest(part))
    )
    return cast(Tensor, made)


@contextmanager
def _statistics_at_rest(part: nn.Module) -> Iterator[None]:
    """Batch norms of `part` update copies of their running statistics, which are thrown away.

    Copies rather than none at all: autograd must be given as many tensors as in the first computation.
    """
    own = [
        (norm, name, buffer)
        for norm in part.modules()
        if isinstance(norm, _BatchNorm)
        for name, buffer in norm.named_buffers(recurse=False)
    ]
    for norm, name, buffer in own:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in own:
            setattr(norm, name, buffer)
