import pytest

from src.deploy.comparison.timing import interleaved, summarize


class Bench:
    """A clock that calls move: each takes the next of its own durations."""

    def __init__(self) -> None:
        self.now = 100.0
        self.order: list[str] = []

    def call(self, name: str, *durations: float):
        left = list(durations)

        def run() -> None:
            self.order.append(name)
            self.now += left.pop(0)

        return run

    def pause(self) -> None:
        self.order.append("-")
        self.now += 1000.0


def test_calls_take_turns_and_only_their_own_time_counts():
    bench = Bench()
    calls = [bench.call("A", 9, 1, 2, 3), bench.call("B", 9, 10, 20, 30), bench.call("C", 9, 0, 0, 5)]
    seconds = interleaved(calls, repeats=3, warm_up=1, clock=lambda: bench.now, pause=bench.pause)
    assert seconds == ((1, 2, 3), (10, 20, 30), (0, 0, 5))
    assert "".join(bench.order) == "ABC" + "-A-B-C" * 3


@pytest.mark.parametrize("warm_up", [0, 2])
def test_warm_up_rounds_run_and_are_not_measured(warm_up):
    bench = Bench()
    calls = [bench.call("A", *[7] * warm_up, 1), bench.call("B", *[7] * warm_up, 2)]
    assert interleaved(calls, repeats=1, warm_up=warm_up, clock=lambda: bench.now) == ((1,), (2,))
    assert "".join(bench.order) == "AB" * (warm_up + 1)


def test_one_call_alone_and_the_real_clock():
    (seconds,) = interleaved([lambda: None], repeats=4, warm_up=0)
    assert len(seconds) == 4 and min(seconds) >= 0


def test_an_error_of_a_call_is_not_hidden():
    def broken() -> None:
        raise ValueError("no such picture")

    with pytest.raises(ValueError, match="no such picture"):
        interleaved([broken], repeats=1, warm_up=0)


def test_median_and_quartiles_worked_out_by_hand():
    timing = summarize((5.0, 1.0, 2.0, 100.0, 3.0))
    assert timing == (3.0, 2.0, 5.0, 5)
    assert summarize((0.25,)) == (0.25, 0.25, 0.25, 1)
    assert summarize((1.0, 2.0)).median == 1.5
