"""How long calls take, measured in turns so that a slow minute of the machine falls on all of them."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """What one call took over all repeats, in seconds.

    Attributes:
        median: Half of the calls took no longer.
        lower: A quarter of them took no longer.
        upper: Three quarters of them took no longer.
        num_calls: Calls measured.
    """

    median: float
    lower: float
    upper: float
    num_calls: int

    def milliseconds(self) -> dict[str, float]:
        """Plain values that `json.dump` takes."""
        median, lower, upper = (1e3 * value for value in self[:3])
        return {"median": median, "lower_quartile": lower, "upper_quartile": upper, "calls": self.num_calls}


def interleaved(
    calls: Sequence[Callable[[], object]],
    *,
    repeats: int,
    warm_up: int,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[], object] | None = None,
) -> tuple[tuple[float, ...], ...]:
    """Time calls A, B, C in the order A B C A B C ...

    Args:
        calls: What is timed; a call returns only when its work is done.
        repeats: Measured rounds.
        warm_up: Rounds before them, which are not measured.
        clock: Gives the time in seconds.
        pause: Called before each measured call, outside the measured time.

    Returns:
        Seconds of each round, for each call.
    """
    for _ in range(warm_up):
        for call in calls:
            call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, row in zip(calls, seconds, strict=True):
            if pause is not None:
                pause()
            started = clock()
            call()
            row.append(clock() - started)
    return tuple(tuple(row) for row in seconds)


def summarize(seconds: Sequence[float]) -> Timing:
    """The median and the quartiles of at least one measured call."""
    lower, median, upper = (float(value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return Timing(median, lower, upper, len(seconds))
