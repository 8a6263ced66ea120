"""Calls in turns and the ratios of their times, for the benchmarks that compare pairs."""

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

from src.deploy.comparison.timing import interleaved, summarize

Call = Callable[[], object]


class Pair(NamedTuple):
    """A ratio to report.

    Attributes:
        work: What is done.
        ours: Name of the call that does it our way.
        against: Name of the call that it is compared with.
        aim: What the ratio `against` / `ours` should be at least (`work` says where at most); None: no aim.
    """

    work: str
    ours: str
    against: str
    aim: float | None


def measure(
    calls: dict[str, Call],
    pairs: list[Pair],
    rounds: int,
    clock: Callable[[], float],
    pause: Call | None = gc.collect,
) -> dict[str, Any]:
    """Time the calls in turns, with `pause` before each, print them and their ratios.

    Returns:
        `seconds` of each round by call, and `ratios`.
    """
    times = interleaved(list(calls.values()), repeats=rounds, warm_up=2, clock=clock, pause=pause)
    seconds = dict(zip(calls, times, strict=True))
    for name, row in seconds.items():
        print(f"  {name:<48}{1e3 * summarize(row).median:>10.2f} ms  ({1e3 * min(row):.2f} at the least)")
    ratios = []
    for pair in pairs:
        ratio = summarize(seconds[pair.against]).median / summarize(seconds[pair.ours]).median
        least = min(seconds[pair.against]) / min(seconds[pair.ours])
        aim = "" if pair.aim is None else f", aim {pair.aim:.2f}x"
        print(f"  {pair.work}: {ratio:.2f}x of {pair.against} ({least:.2f}x of the least){aim}")
        ratios.append({**pair._asdict(), "ratio": ratio, "ratio_of_least": least})
    return {"seconds": seconds, "ratios": ratios}
