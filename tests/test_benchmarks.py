"""What the benchmarks say of their figures; what they measure differs each time."""

import sys

import pytest

from benchmarks import pairs, training
from benchmarks.pairs import Pair, Way, measure
from benchmarks.rows import Row
from src import door


@pytest.mark.parametrize(
    ("reached", "at_most", "told"),
    [
        (1.4, False, "| at least 1.50x | **1.40x** |"),
        (1.5, False, "| at least 1.50x | 1.50x |"),
        (1.4, True, "| at most 1.50x | 1.40x |"),
        (1.6, True, "| at most 1.50x | **1.60x** |"),
    ],
)
def test_a_missed_aim_is_bold(reached: float, at_most: bool, told: str) -> None:
    assert told in Row("work", "peer", reached, "x", 1.5, at_most).line()


def test_a_row_says_how_it_was_measured() -> None:
    row = Row("work", "", 2500.0, "ms", None, False, (2.5, 0.0123), *Way(5, 2, "wall"))
    assert row.line() == "| work |  |  | 2,500 ms | 2,500 ms, 12.3 ms | 2 threads, wall clock, 5 rounds |"
    assert Row("work", "", 7, "nodes").line() == "| work |  |  | 7 nodes |  |  |"


def test_a_limit_of_time_divides_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 3.0, 5.0])
    monkeypatch.setitem(pairs.CLOCKS, "cpu", lambda: next(clock))
    wanted = [
        Pair("speed", "a", "b", None),
        Pair("limit", "a", "b", 1.2, at_most=True),
        Pair("alone", "a", None, None),
    ]
    rows = measure({"a": lambda: None, "b": lambda: None}, wanted, Way(1, 1, "cpu"), pause=None)
    assert [(row.reached, row.unit) for row in rows] == [(2 / 3, "x"), (1.5, "x"), (3000, "ms")]
    assert rows[1].medians == [3.0, 2.0]


def test_without_the_peer_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert door.run(training.losses_work) == 2
    told = "error: the package 'transformers' is not installed; run: pip install -r requirements-dev.txt\n"
    assert capsys.readouterr().err == told
