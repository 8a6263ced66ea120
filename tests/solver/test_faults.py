"""Faults in the real training on two ranks: all ranks end in time, and the one fault is told once."""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fault_cases import CASES

from benchmarks.faults import GONE_WITHIN, differences
from src.solver.checkpoint import read_checkpoint

pytestmark = pytest.mark.dist
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMEOUT_S = 1200  # of a loaded machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the driver wrote; it runs once, also where pytest itself has several processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    found = shared / "faults"
    with (shared / "faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found / "record.json").exists():
            driver = Path(__file__).with_name("fault_driver.py")
            subprocess.run([sys.executable, driver, found], env=ENVIRONMENT, timeout=TIMEOUT_S, check=True)
    return found


@pytest.fixture(scope="module")
def records(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((folder / "record.json").read_text())
    return found


def last_words(said: list[str]) -> dict[int, str]:
    """What each rank told of its end, if it did."""
    found = {rank: re.search(rf"rank {rank}: (.+)", text, re.DOTALL) for rank, text in enumerate(said)}
    return {rank: match[1].strip() for rank, match in found.items() if match}


@pytest.mark.parametrize("name", CASES)
def test_all_ranks_end_in_time_as_they_should(name: str, records: dict[str, dict[str, Any]]) -> None:
    record = records[name]
    assert record["statuses"] == list(CASES[name].statuses), record["said"]
    if any(record["statuses"]):
        assert record["seconds_after_fault"] < GONE_WITHIN


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_told_once_by_the_rank_that_met_it(
    name: str, records: dict[str, dict[str, Any]]
) -> None:
    case, words = CASES[name], last_words(records[name]["said"])
    gone = {rank for rank, text in words.items() if text.startswith("another rank has gone")}
    told = {rank: text for rank, text in words.items() if rank not in gone}
    failed = {rank for rank, status in enumerate(case.statuses) if status in (1, 2)}
    assert len(told) == bool(case.told)
    for rank, text in told.items():
        assert re.fullmatch(case.told, text, re.DOTALL)
        assert "another rank" not in text
        if failed:
            assert case.fault is not None
            assert rank == case.fault.rank
    assert gone == failed - told.keys()


@pytest.mark.parametrize("name", CASES)
def test_there_is_no_traceback_but_that_of_the_fault(name: str, records: dict[str, dict[str, Any]]) -> None:
    said = "".join(records[name]["said"])
    begun = len(re.findall(r"(?<!Original )Traceback \(most recent call last\)", said))
    chained = said.count("The above exception was the direct cause of the following exception")
    assert begun - chained == CASES[name].told.startswith("Traceback")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.statuses[0] in (0, 130, 143)])
def test_ranks_that_end_in_order_hold_the_same_weights_after_the_same_step(
    name: str, folder: Path, records: dict[str, dict[str, Any]]
) -> None:
    one, two = records[name]["ends"]
    assert one == two
    output = folder / (CASES[name].resumes or name) / "output"
    assert read_checkpoint(output / "last.pth")["step"] == one["step"]


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_both(
    records: dict[str, dict[str, Any]],
) -> None:
    record = records["one-step-not-finite-on-rank-1"]
    assert [text.count("step 2 is skipped, number 1 in a row") for text in record["said"]] == [1, 1]
    assert record["ends"][0]["step"] == 4


@pytest.mark.parametrize("name", ["no-objects-on-rank-1", "no-objects-at-all", "unequal-lengths"])
def test_no_loss_is_lost_where_pictures_or_objects_are_few(
    name: str, folder: Path, records: dict[str, dict[str, Any]]
) -> None:
    assert "null" not in (folder / name / "output" / "metrics.jsonl").read_text()
    assert not any("is skipped" in text for text in records[name]["said"])


def test_a_run_killed_while_it_wrote_goes_on_as_an_undisturbed_one(folder: Path) -> None:
    killed, undisturbed = (folder / name / "output" for name in ("killed-while-it-writes", "undisturbed"))
    assert differences(killed, undisturbed) == []


@pytest.mark.usefixtures("records")
def test_a_full_disk_leaves_the_old_checkpoint_whole(folder: Path) -> None:
    output = folder / "disk-full" / "output"
    assert read_checkpoint(output / "last.pth")["step"] == 2
    assert list(output.glob("*.tmp")) == []


def campaign(*options: str) -> dict[str, Any]:
    """What the fault campaign counted; it exits with 1 where a case fails."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *options],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    counts: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return counts


def test_a_short_campaign_of_faults() -> None:
    counts = campaign("--runs=2", "--damages=60", "--restarts=0")
    assert counts["identical after kills"] == [2, 2]
    assert counts["damages found"] == [60, 60]


@pytest.mark.slow
def test_an_automatic_restart() -> None:
    assert campaign("--runs=0", "--damages=0", "--restarts=1")["restarts that ended well"] == [1, 1]
