"""How two ranks end under torchrun when one of them meets a fault.

Nothing is timed: a rank that did not end by itself would be killed and could not say its last line.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from distributed_launch import TIMEOUT_S, launch, two_ranks

pytestmark = pytest.mark.dist
GONE = (
    r"(another rank has gone \(.+\), so this one stops|stopped by SIGTERM)"  # torchrun asks it to stop, too
)


def exit_codes(err: str) -> list[int]:
    """Of the ranks, as torchrun tells them, sorted."""
    return sorted(int(code) for code in re.findall(r"exitcode\s+: (-?\d+)", err))


def test_an_error_ends_the_other_rank_and_is_told_once() -> None:
    _, err = two_ranks("error", rank="1")
    assert err.count("ArithmeticError: rank 1 cannot go on") == 1
    assert "rank 1: Traceback (most recent call last):" in err
    assert re.search("rank 0: " + GONE, err)
    assert 1 in exit_codes(err)
    assert -signal.SIGKILL not in exit_codes(err)


def test_a_fault_of_the_user_on_one_rank_names_it() -> None:
    _, err = two_ranks("user", rank="1")
    assert err.count("rank 1: error: no such picture: 7.jpg\n") == 1
    assert re.search("rank 0: " + GONE, err)
    assert 2 in exit_codes(err)


@pytest.mark.parametrize("fault", ["user", "early"])  # with and without a process group
def test_a_fault_that_all_ranks_meet_is_told_once(fault: str) -> None:
    _, err = two_ranks(fault, rank="all")
    assert err.count("error: no such") == 1
    assert "has gone" not in err
    assert 2 in exit_codes(err)


def test_a_killed_rank_ends_the_other() -> None:
    _, err = two_ranks("kill", rank="0")
    assert re.search("rank 1: " + GONE, err)
    assert -signal.SIGKILL in exit_codes(err)


@pytest.mark.parametrize(("step", "where"), [(3, "after step 4"), (10, "at the end")])
def test_a_signal_to_one_rank_stops_both_at_the_same_step(step: int, where: str) -> None:
    out, err = two_ranks("term", rank="1", step=step)
    assert [line for line in out if "stopped" in line] == [f"rank {rank} stopped {where}" for rank in (0, 1)]
    assert err.count("stopped by SIGTERM") == 1
    assert set(exit_codes(err)) == {128 + signal.SIGTERM}


def test_a_signal_to_torchrun_stops_both_at_the_same_step() -> None:
    run = launch(["--standalone", "--nproc-per-node=2"], fault="wait", rank="all")
    assert run.stdout is not None
    while "waits" not in run.stdout.readline():
        assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=TIMEOUT_S)
    stopped = re.findall(r"rank \d stopped after step (\d+)", out)
    assert len(stopped) == 2
    assert len(set(stopped)) == 1
    assert err.count("stopped by SIGTERM") == 1


STUBBORN = """
import atexit, multiprocessing, sys, time
from src import distributed, door

def main():
    distributed.start("cpu")
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    atexit.register(time.sleep, 600)
    raise ArithmeticError("cannot go on")

sys.exit(door.run(main))
"""


def test_a_failing_rank_waits_for_nothing() -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    run = subprocess.run(
        [sys.executable, "-c", STUBBORN],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.count("ArithmeticError: cannot go on") == 1
