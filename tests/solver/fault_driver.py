"""Runs the cases of fault_cases.py on two ranks each; started by the tests, never collected.

Usage: fault_driver.py FOLDER [NAME ...]; what NAME's ranks write is in FOLDER/NAME, and what became of all
cases in FOLDER/record.json. The ranks are forked, so that torch is imported once, and go through the door of
train.py; beside them a process serves the store that torchrun's agent would.
"""

import gc
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
import torch.utils.tensorboard  # here, so that no rank has to load it
from fault_cases import CASES, Case

import train
from benchmarks import faults
from src import door
from src.data.synthetic import DemoSettings, write_demo_dataset
from src.solver import recorder
from src.solver.trainer import Trainer

WHOLE_RUN_S = 180  # that a run may take on a loaded machine, to its end or to its fault
GIVEN_UP_S = 30  # after the fault: a rank that has not ended by then is killed


def be_rank(case: Case, job: faults.Job, rank: int, port: int) -> None:
    """Train as `train.py` does, as one of two processes under torchrun; does not return."""
    os.setsid()
    folder = Path(os.environ["CASE"])
    sink = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True")
    torch.set_num_threads(1)
    fit = Trainer.fit

    def fit_and_tell(self: Trainer) -> None:
        try:
            fit(self)
        finally:
            end = {"step": self.global_step, "weights": digest(self.model)}
            (folder / f"rank{rank}.json").write_text(json.dumps(end))

    Trainer.fit = fit_and_tell  # type: ignore[assignment, method-assign]
    if case.fault is not None:
        case.fault.prepare(rank)
    recorder.plot_history = lambda *_: None  # the curves would take half of so short a run
    recorder.write_report = lambda *_, **__: None
    settings = [*job.overrides(), *case.settings]
    sys.argv = ["train.py", "-c", str(faults.CONFIG), "-r", "auto", "-u", *settings]
    sys.exit(door.run(train.main))


def digest(module: torch.nn.Module) -> str:
    """Of all weights and buffers."""
    sha = hashlib.sha256()
    for name, value in module.state_dict().items():
        sha.update(name.encode() + value.numpy().tobytes())
    return sha.hexdigest()


def serve_store(port: int) -> None:
    """Be what torchrun's agent is to its workers; does not return."""
    os.setsid()
    limit = timedelta(seconds=WHOLE_RUN_S)
    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=limit)
    while store is not None:
        signal.pause()


def run(name: str, folder: Path) -> dict[str, Any]:
    """Have the case happen; how its ranks ended, when, and what they told."""
    case, place = CASES[name], folder / name
    place.mkdir()
    os.environ["CASE"] = str(place)
    job = faults.Job(folder / case.dataset, folder / (case.resumes or name) / "output", 2, case.workers)
    port = faults.free_port()
    begin = time.monotonic()
    agent = fork(serve_store, port)
    ranks = [fork(be_rank, case, job, rank, port) for rank in (0, 1)]
    statuses, fault = wait(ranks, place / "fault")
    end = time.monotonic()
    for leader in (agent, *ranks):
        faults.kill(leader)  # of a rank, what is left of its session: loader workers
    os.waitpid(agent, 0)
    return {
        "statuses": statuses,
        "seconds": end - begin,
        "seconds_after_fault": end - fault if fault else None,
        "said": [(place / f"rank{rank}.txt").read_text() for rank in (0, 1)],
        "ends": [json.loads(p.read_text()) for p in sorted(place.glob("rank?.json"))],
    }


def fork(be: Callable[..., None], *args: Any) -> int:
    """The id of a new process that is `be(*args)`."""
    pid = os.fork()
    if pid == 0:
        be(*args)
    return pid


def wait(ranks: list[int], mark: Path) -> tuple[list[int], float | None]:
    """Exit statuses of all ranks, and when their fault happened."""
    deadline, fault = time.monotonic() + WHOLE_RUN_S, None
    statuses: dict[int, int] = {}
    while len(statuses) < len(ranks):
        if fault is None and mark.exists() and (marks := mark.read_text().splitlines()):
            fault = float(marks[0])
            deadline = fault + GIVEN_UP_S
        for pid in set(ranks) - statuses.keys():
            if time.monotonic() > deadline:
                faults.kill(pid)
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return [statuses[pid] for pid in ranks], fault


def main() -> None:
    """Run the cases that the command line names, or all."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    for name, train_pictures, val_pictures in (("pictures", 16, 6), ("seven_and_one", 7, 1)):
        settings = DemoSettings(num_train=train_pictures, num_val=val_pictures, size=64, seed=3)
        write_demo_dataset(folder / name, settings)
    gc.freeze()  # what was imported here is no work for the ranks' collectors, at their end above all
    record = {name: run(name, folder) for name in sys.argv[2:] or CASES}
    (folder / "record.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
