"""The exponential moving average of a model's weights."""

import copy
import math
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

LONGEST_SPAN = 0.2
"""Largest share of a run that the average may span."""


def fitting_decay(decay: float, *, total_steps: int) -> float:
    """`decay`, but at most such that the average spans, as 1 / (1 - decay) steps, a fifth of the run.

    A small dataset's average would else hold on to weights from the start of its run.
    """
    return min(decay, max(0.0, 1 - 1 / (LONGEST_SPAN * total_steps)))


class ModelEMA:
    """A copy of a model whose weights follow those of the model that trains.

    After update t the average keeps `decay * (1 - exp(-t / warmups))` of itself, so that it forgets the
    first, random weights fast. Parameters and floating buffers (BatchNorm's statistics) are averaged,
    integer ones copied.

    Args:
        model: The bare model, where it trains (device, synchronised norms).

    Attributes:
        module: The average, in evaluation mode and without gradients.
        decay: Share of the old average that an update keeps, once warm.
        warmups: Updates over which the decay rises; 0 has no warm-up.
        updates: Updates since the start.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9999, warmups: int = 1000) -> None:
        if warmups < 0:
            raise ValueError(f"ema.warmups is {warmups}; it may be 0 or more updates")
        self.decay = _checked(decay)
        self.warmups = warmups
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaged, self._copied = _split(self.module)
        self._source: weakref.ref[nn.Module] | None = None
        self._averaged_from: list[Tensor] = []
        self._copied_from: list[Tensor] = []

    @property
    def effective_decay(self) -> float:
        """Share of the old average that the latest update kept."""
        if self.warmups == 0:
            return self.decay
        return self.decay * (1 - math.exp(-self.updates / self.warmups))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`, the bare model that was given at the start or its like."""
        self._follow(model)
        self.updates += 1
        if self._averaged:
            torch._foreach_lerp_(self._averaged, self._averaged_from, 1 - self.effective_decay)
        if self._copied:
            torch._foreach_copy_(self._copied, self._copied_from)

    @torch.no_grad()
    def restart(self, decay: float, from_model: nn.Module | None = None) -> None:
        """Go on with another decay; with `from_model`, from its weights. The warm-up is not repeated.

        Raises:
            ValueError: `decay` is outside [0, 1).
        """
        self.decay = _checked(decay)
        if from_model is not None:
            self.module.load_state_dict(from_model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the average, the number of updates, the decay in force."""
        return {"module": self.module.state_dict(), "updates": self.updates, "decay": self.decay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; strictly, so that a foreign average is an error."""
        self.module.load_state_dict(state["module"])
        self.updates = int(state["updates"])
        self.decay = _checked(float(state["decay"]))

    def _follow(self, model: nn.Module) -> None:
        """Collect the tensors of `model` once: the hot path then has no loop over names."""
        if self._source is not None and self._source() is model:
            return
        tensors = _tensors(model)
        names = _tensors(self.module)
        if tensors.keys() != names.keys():
            other = sorted(tensors.keys() ^ names.keys())
            raise ValueError(
                f"the average and the model differ in {len(other)} tensors: {', '.join(other[:5])}"
            )
        by_average = {id(average): tensors[name] for name, average in names.items()}
        self._averaged_from = [by_average[id(t)] for t in self._averaged]
        self._copied_from = [by_average[id(t)] for t in self._copied]
        self._source = weakref.ref(model)


def _checked(decay: float) -> float:
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"an average cannot keep {decay} of itself; decay may be 0 or more, and below 1")
    return decay


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers themselves (not detached views, which a move would leave behind)."""
    return {name: t for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}


def _split(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors to average and tensors to copy, each once even where modules share it.

    A buffer with infinities (a mask) is a constant: averaging it would give NaN.
    """
    tensors = list({id(t): t for t in _tensors(module).values()}.values())
    averaged = [
        t
        for t in tensors
        if t.is_floating_point() and (isinstance(t, nn.Parameter) or bool(torch.isfinite(t).all()))
    ]
    chosen = {id(t) for t in averaged}
    return averaged, [t for t in tensors if id(t) not in chosen]
