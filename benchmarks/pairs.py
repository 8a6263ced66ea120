"""Calls in turns and the ratios of their times, for the benchmarks that compare pairs."""

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

from src.deploy.comparison.timing import interleaved, summarize

from .rows import Row

Call = Callable[[], object]
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


class Pair(NamedTuple):
    """A figure to report.

    Attributes:
        work: What is done.
        ours: Name of the call that does it our way.
        against: Name of the call that it is compared with; None: the time in milliseconds is the figure.
        aim: How many times as fast as `against` it should be at least; None: no aim.
        at_most: The figure is how many times as long as `against` it takes, and the aim its limit.
    """

    work: str
    ours: str
    against: str | None
    aim: float | None
    at_most: bool = False


class Way(NamedTuple):
    """How it is measured; attributes as a row's."""

    rounds: int
    threads: int
    clock: str


def measure(
    calls: dict[str, Call], pairs: list[Pair], way: Way, pause: Call | None = gc.collect
) -> list[Row]:
    """Time the calls in turns, after a round that does not count, with `pause` before each; print medians."""
    clock = CLOCKS[way.clock]
    times = interleaved(list(calls.values()), repeats=way.rounds, warm_up=1, clock=clock, pause=pause)
    seconds = dict(zip(calls, times, strict=True))
    for name, row in seconds.items():
        print(f"  {name:<48}{1e3 * summarize(row).median:>10.2f} ms  ({1e3 * min(row):.2f} at the least)")
    rows = []
    for work, ours, against, aim, at_most in pairs:
        names = (ours,) if against is None else (ours, against)
        medians = [summarize(seconds[name]).median for name in names]
        if against is None:
            reached, unit = 1e3 * medians[0], "ms"
        else:
            reached, unit = medians[0] / medians[1] if at_most else medians[1] / medians[0], "x"
        rows.append(Row(work, against or "", reached, unit, aim, at_most, medians, *way))
    return rows
