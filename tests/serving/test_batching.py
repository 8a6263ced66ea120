import threading
from collections.abc import Iterator, Sequence

import pytest
import torch

from src.deploy.predictor import Found, Prepared
from src.serving.batching import Batcher

WAIT_S = 60


def pictures(*names: str) -> list[Prepared]:
    return [Prepared(torch.zeros(3, 1, 1, dtype=torch.uint8), (1, 1), name) for name in names]


class Held:
    """A detector that stops before each call until it is let go on."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self, batch: Sequence[Prepared]) -> list[Found]:
        self.calls.append([one.name for one in batch])
        self.begun.release()
        assert self.may_end.acquire(timeout=WAIT_S)
        if "bad" in self.calls[-1]:
            raise ValueError("broken weights")
        return [
            Found(torch.tensor([float(ord(one.name[0]))]), torch.zeros(1), torch.zeros(1, 4)) for one in batch
        ]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def batcher(held: Held) -> Iterator[Batcher]:
    made = Batcher(held, 3, 0)
    yield made
    held.may_end.release(99)
    made.close()


def test_pictures_that_wait_share_a_call_and_keep_their_order(held: Held, batcher: Batcher) -> None:
    first = batcher.find(pictures("a"))
    assert held.begun.acquire(timeout=WAIT_S)
    rest = [batcher.find(pictures(*names)) for names in ("bc", "d", "efg")]
    held.may_end.release(99)
    scores = [[one.result(WAIT_S).scores.item() for one in part] for part in (first, *rest)]
    assert scores == [[97], [98, 99], [100], [101, 102, 103]]
    assert held.calls == [["a"], ["b", "c", "d"], ["e", "f", "g"]]


def test_a_call_waits_for_more_and_no_longer_than_until_it_is_full(held: Held) -> None:
    held.may_end.release(99)
    sizes: list[int] = []
    batcher = Batcher(held, 2, WAIT_S * 1000, sizes.append)
    futures = batcher.find(pictures("a"))
    futures += batcher.find(pictures("b"))
    assert [one.result(WAIT_S).scores.item() for one in futures] == [97, 98]
    assert sizes == [2]
    batcher.close()


def test_cancelled_picture_is_not_looked_at(held: Held, batcher: Batcher) -> None:
    (first,) = batcher.find(pictures("a"))
    assert held.begun.acquire(timeout=WAIT_S)
    gone, stays = batcher.find(pictures("b", "c"))
    assert gone.cancel()
    held.may_end.release(99)
    assert stays.result(WAIT_S).scores.item() == 99
    assert first.done()
    assert held.calls == [["a"], ["c"]]


def test_error_reaches_its_picture_and_no_other_of_its_call(held: Held, batcher: Batcher) -> None:
    first = batcher.find(pictures("a"))
    assert held.begun.acquire(timeout=WAIT_S)
    good, bad, last = batcher.find(pictures("b", "bad", "c"))
    held.may_end.release(99)
    assert [one.result(WAIT_S).scores.item() for one in (*first, good, last)] == [97, 98, 99]
    with pytest.raises(ValueError, match="broken weights"):
        bad.result(WAIT_S)
    assert held.calls == [["a"], ["b", "bad", "c"], ["b"], ["bad"], ["c"]]


def test_no_picture_is_left_without_an_end() -> None:
    one = Found(torch.zeros(1), torch.zeros(1), torch.zeros(1, 4))
    short = Batcher(lambda _: [one], 2, WAIT_S * 1000)
    assert [future.result(WAIT_S) for future in short.find(pictures("a", "b"))] == [one, one]
    none = Batcher(lambda _: [], 1, 0)
    unseen = Batcher(lambda batch: [one] * len(batch), 1, 0, observe=lambda count: 1 // (count - 1))
    for batcher, fault in ((none, ValueError), (unseen, ZeroDivisionError)):
        with pytest.raises(fault):
            batcher.find(pictures("a"))[0].result(WAIT_S)
    for batcher in (short, none, unseen):
        batcher.close()
