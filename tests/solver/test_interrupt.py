import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from src import distributed
from src.door import Interrupted
from src.solver.interrupt import StopRequest


def get(number: int) -> None:
    """A signal, and the moment in which Python calls its handler."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_answers_the_loop(number: int) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.agreed() is None
        get(number)
        assert stop.local() == stop.agreed() == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_a_signal_does_not_wait(first: int) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        get(first)
        get(signal.SIGINT)


def test_the_launcher_may_repeat_its_signal() -> None:
    with StopRequest() as stop:
        get(signal.SIGTERM)
        get(signal.SIGTERM)
        assert stop.local() == signal.SIGTERM


def test_other_threads_leave_the_handlers_alone() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    inside: list[object] = []

    def enter() -> None:
        with StopRequest() as stop:
            inside.extend([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)])
            assert stop.agreed() is None

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == before


def test_a_forked_process_ends_as_usual() -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()  # Python forgets a signal that comes in the middle of a fork
    with StopRequest() as stop:
        child = context.Process(target=lambda: (begun.set(), time.sleep(60)))
        child.start()
        assert begun.wait(20)
        child.terminate()
        child.join(20)
        assert child.exitcode == -signal.SIGTERM
        assert stop.local() is None


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As one rank of two sees it; signals are answered as before at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("two_ranks")
def test_a_rank_that_was_asked_to_stop_is_not_surprised_when_another_went_first() -> None:
    with pytest.raises(RuntimeError, match="closed by peer"), StopRequest():
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(Interrupted) as stopped, StopRequest():
        get(signal.SIGTERM)
        raise RuntimeError("Connection closed by peer")
    assert stopped.value.signal == signal.SIGTERM


@pytest.mark.usefixtures("two_ranks")
def test_torchruns_signal_lets_a_rank_that_has_lost_another_say_so() -> None:
    number = signal.SIGTERM
    before = signal.getsignal(number)
    with pytest.raises(RuntimeError), StopRequest() as stop:
        raise RuntimeError("Connection closed by peer")
    assert signal.getsignal(number) is not before
    get(number)
    assert stop.local() == number
