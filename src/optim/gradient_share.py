"""The weight of a loss, steered by the share of all gradients that one part of the model has.

RT-DETRv4's gradient-guided adaptive modulation: where a teacher pulls too hard, the part that it pulls at
takes too large a share of the model's gradients, where it hardly pulls, too small a one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LARGEST_FACTOR = 10.0
"""Between its inverse and this, the weight is multiplied at once."""
LARGEST_RISE = 10.0
"""The weight stays at most so many times its first value."""


def gradient_share(part: Sequence[Tensor], rest: Sequence[Tensor]) -> Tensor:
    """The share of `part` in the sum of all gradients' absolute values: a scalar in [0, 1], on the device.

    Args:
        part: Gradients of the part, at least one, float32.
        rest: Those of all other parameters.
    """
    own, other = (torch.stack(torch._foreach_norm(list(g), 1)).sum() if g else 0.0 for g in (part, rest))
    assert isinstance(own, Tensor), "the part has gradients"
    return own / (own + other)


def steered_weight(weight: float, share: float, *, aim: float, tolerance: float) -> float:
    """`weight`, or where `share` is farther than `tolerance` from `aim` the one to go on with.

    A share below the range aims at its upper end and one above it at its lower end. The gradient that the
    loss causes is taken to be proportional to its weight, that of everything else to be constant: the weight
    is then proportional to the odds share / (1 - share). It changes at most tenfold at once.

    Args:
        weight: The weight under which `share` was measured.
        share: In [0, 1].
        aim: The share to be reached (rho), with `tolerance` (delta) inside (0, 1) on both sides.
        tolerance: Half the width of the range in which nothing changes.
    """
    low, high = aim - tolerance, aim + tolerance
    if low <= share <= high:
        return weight
    target = high if share < low else low
    wanted, found = target * (1 - share), share * (1 - target)
    factor = wanted / found if found > 0 else LARGEST_FACTOR
    return weight * min(max(factor, 1 / LARGEST_FACTOR), LARGEST_FACTOR)


class SteeredWeight:
    """A loss's weight, which may change once an epoch, up to `LARGEST_RISE` times its first value.

    That bound is ours: the loss has gradients outside the part, too, so that there are shares which no weight
    reaches, and a weight that rises towards one drowns all other losses.

    Args:
        weight: The first one.
        restart_weight: The one from `restart` on; None for `weight`.
        aim: As of `steered_weight`; None never changes the weight.
        tolerance: Likewise.

    Attributes:
        weight: The one in force.
    """

    def __init__(
        self, weight: float, *, restart_weight: float | None, aim: float | None, tolerance: float
    ) -> None:
        self.weight = weight
        self._most = LARGEST_RISE * weight
        self._restart_weight = weight if restart_weight is None else restart_weight
        self._aim = aim
        self._tolerance = tolerance
        self._steers = True
        self._total: Tensor | None = None
        self._count = 0

    def add(self, share: Tensor) -> None:
        """One step's share; it stays on its device."""
        self._total = share if self._total is None else self._total + share
        self._count += 1

    def mean_share(self) -> Tensor | None:
        """The mean since the weight was last looked at; None where no step was taken."""
        return None if self._total is None else self._total / self._count

    def end_epoch(self, share: float) -> None:
        """Choose the next epoch's weight; `share` is the epoch's mean, the same on every rank."""
        self._total, self._count = None, 0
        if self._steers and self._aim is not None:
            wanted = steered_weight(self.weight, share, aim=self._aim, tolerance=self._tolerance)
            self.weight = min(wanted, self._most)

    @property
    def at_its_most(self) -> bool:
        """Whether the weight would rise further if it might."""
        return self._steers and self._aim is not None and self.weight >= self._most

    def restart(self) -> None:
        """Take `restart_weight`, for good: the average of the weights starts anew, and averages one loss."""
        self.weight, self._steers = self._restart_weight, False

    def state_dict(self) -> dict[str, Any]:
        """What changes in a run."""
        return {
            "weight": self.weight,
            "steers": self._steers,
            "total": self._total,
            "count": self._count,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        total = state["total"]
        self.weight, self._steers = float(state["weight"]), bool(state["steers"])
        self._total = None if total is None else total.to(device)
        self._count = int(state["count"])
