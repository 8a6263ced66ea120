import io
import logging
import re
from pathlib import Path

import pytest
import torch

from src import distributed
from src.solver import progress as progress_module
from src.solver.progress import Progress, peak_memory


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_rate_and_time_left_by_hand(clock: Clock) -> None:
    progress = Progress(total=10, epoch=1, epochs=4)
    progress.describe(loss=12.34567, lr=2.5e-4)
    for _ in range(5):
        clock.now += 2.0
        progress.advance(images=16)
    # 5 of 30 steps took 10 s: 25 steps of 2 s are left
    assert progress.text().startswith("loss 12.3457, lr 0.00025, 8.0 images/s, ETA 0:00:50, memory ")


def test_without_a_terminal_there_is_a_line_now_and_then(
    clock: Clock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        caplog.at_level(logging.INFO),
        Progress(total=10, epoch=0, epochs=2, seconds_between_lines=30) as progress,
    ):
        for _ in range(10):
            clock.now += 8.0
            progress.advance(images=1)
    said = [re.match(r"epoch 0 \(1 of 2\), step (\d+)/10: ", r.getMessage()) for r in caplog.records]
    assert [m and m.group(1) for m in said] == ["4", "8", "10"]
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO), Progress(total=3, epoch=4, epochs=5) as progress:
        progress.describe(loss=1.5, lr=0.1)
        for _ in range(3):
            clock.now += 40.0
            progress.advance(images=4)
        progress._bar.refresh()
    shown = terminal.getvalue()
    assert "epoch 4 (5 of 5)" in shown
    assert "3/3" in shown
    assert "loss 1.5000, lr 0.1, 0.1 images/s, ETA 0:00:00" in shown
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["epoch 4 (5 of 5), step 3/3"]


def test_other_ranks_are_silent(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with (
        caplog.at_level(logging.INFO),
        Progress(total=2, epoch=0, epochs=1, seconds_between_lines=0) as progress,
    ):
        clock.now += 5
        progress.advance(images=4)
    assert (terminal.getvalue(), caplog.records) == ("", [])


def test_an_epoch_cut_off_by_an_error_closes_its_bar(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RuntimeError),
        Progress(total=2, epoch=0, epochs=1) as progress,
    ):
        clock.now += 1
        raise RuntimeError
    progress.close()
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["epoch 0 (1 of 1), step 0/2"]


def test_memory_is_that_of_this_process() -> None:
    status = Path("/proc/self/status")
    if torch.cuda.is_initialized() or not status.exists():
        pytest.skip("only Linux tells a process's peak in a second place")
    stated = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert stated is not None
    assert peak_memory() == pytest.approx(int(stated.group(1)) * 1024, rel=0.02)
