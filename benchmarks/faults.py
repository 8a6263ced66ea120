"""The fault campaign: runs killed at random moments and resumed, damaged checkpoints, automatic restarts.

    python -m benchmarks.faults [--runs 40] [--damages 1000] [--restarts 20] [--seed 0]

Each killed run must end with the weights, the average, the moments and the log of one that was never
disturbed, bit by bit. It takes minutes on a CPU and exits with 1 where a single case fails.
"""

import argparse
import gc
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from src import assembly, distributed, runs
from src.data.synthetic import DemoSettings, write_demo_dataset
from src.solver import recorder
from src.solver.checkpoint import read_checkpoint
from src.solver.checkpoint_folder import CheckpointFolder

ROOT = Path(__file__).resolve().parents[1]
CONFIG = Path(__file__).with_name("faults.yml")
GIVEN_UP_AFTER = 120.0  # seconds that an attempt may take; longer is a hang
GONE_WITHIN = 10.0  # seconds in which the other ranks must have ended after one was killed


class Job(NamedTuple):
    """One attempt at training.

    Attributes:
        dataset: Folder of the pictures.
        output: Folder of the run.
        ranks: Processes.
        num_workers: Loader processes of each.
    """

    dataset: Path
    output: Path
    ranks: int = 1
    num_workers: int = 0

    def overrides(self) -> list[str]:
        """What is not in the YAML."""
        found = [f"output_dir={self.output}", f"train_dataloader.num_workers={self.num_workers}"]
        for split in ("train", "val"):
            section = f"{split}_dataloader.dataset"
            annotations = self.dataset / "annotations" / f"instances_{split}.json"
            found += [f"{section}.img_folder={self.dataset / split}", f"{section}.ann_file={annotations}"]
        return found


def start(job: Job) -> list[int]:
    """Fork one process for each rank (imports are done once, here); their ids, each leads its own session."""
    port = free_port()
    children = []
    for rank in range(job.ranks):
        pid = os.fork()
        if pid == 0:
            train_and_leave(job, rank, port)
        children.append(pid)
    return children


def train_and_leave(job: Job, rank: int, port: int) -> None:
    """Be rank `rank` of the job, from its newest checkpoint on; does not return."""
    os.setsid()
    job.output.mkdir(parents=True, exist_ok=True)
    sink = os.open(job.output / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    status = 1
    try:
        torch.set_num_threads(1)
        recorder.plot_history = lambda *_: None  # the curves would take half of so short a run
        recorder.write_report = lambda *_, **__: None
        if job.ranks > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job.ranks, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
        experiment = assembly.load(CONFIG, job.overrides())
        runs.train(experiment, distributed.start(experiment.device), resume="auto")
        status = 0
    finally:
        os._exit(status)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(children: list[int], seconds: float) -> list[int]:
    """Exit statuses of all children (-9 for one that had to be killed after `seconds`)."""
    deadline = time.monotonic() + seconds
    statuses: dict[int, int] = {}
    while len(statuses) < len(children) and time.monotonic() < deadline:
        for pid in set(children) - statuses.keys():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    for pid in set(children) - statuses.keys():
        kill(pid)
        statuses[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for pid in children:
        kill(pid)  # what is left of its session: loader workers
    return [statuses[pid] for pid in children]


def kill(leader: int) -> None:
    """SIGKILL to a whole session."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def disturbed(job: Job, duration: float, draw: random.Random) -> tuple[bool, list[str]]:
    """Kill the job one to three times at random moments, then let it end; whether it did, and how."""
    told = []
    for _ in range(draw.randint(1, 3)):
        attempt = job._replace(num_workers=draw.choice((0, 0, 1, 2)))
        children = start(attempt)
        moment = draw.choice(("any", "any", "while a checkpoint is written"))
        if moment == "any":
            time.sleep(draw.uniform(0.0, duration))
        else:
            wait_for_writing(job.output, draw.uniform(0.0, duration), duration)
        victim = draw.randrange(job.ranks)
        kill(children[victim])
        statuses = wait(children, GONE_WITHIN + (0 if job.ranks > 1 else GIVEN_UP_AFTER))
        told.append(f"{moment}, rank {victim}, {attempt.num_workers} workers: {statuses}")
        if any(status == -signal.SIGKILL for i, status in enumerate(statuses) if i != victim):
            return False, [*told, "another rank hung"]
    statuses = wait(start(job), GIVEN_UP_AFTER)
    return statuses == [0] * job.ranks, [*told, f"to the end: {statuses}"]


def wait_for_writing(folder: Path, not_before: float, at_most: float) -> None:
    """Return as soon as a temporary file is seen after `not_before` seconds, or after `at_most`."""
    begin = time.monotonic()
    time.sleep(not_before)
    while time.monotonic() - begin < at_most:
        if folder.is_dir() and any(name.endswith(".tmp") for name in os.listdir(folder)):
            return


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two finished runs: tensors and plain values of the checkpoint, and the log."""
    states = [read_checkpoint(folder / "last.pth") for folder in (one, two)]
    kept = (
        "model",
        "ema",
        "optimizer",
        "lr_scheduler",
        "scaler",
        "epoch",
        "step",
        "best",
        "stale_evaluations",
    )
    found = [key for key in kept if not same(states[0][key], states[1][key])]
    logs = [(folder / "metrics.jsonl").read_text() for folder in (one, two)]
    return found if logs[0] == logs[1] else [*found, "metrics.jsonl"]


def same(one: Any, two: Any) -> bool:
    """Equality of nested plain values and tensors, bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def campaign_of_kills(dataset: Path, work: Path, runs: int, draw: random.Random) -> int:
    """How many of `runs` killed and resumed runs ended as an undisturbed one; every other has 2 processes."""
    durations = {}
    for ranks in (1, 2):
        begin = time.monotonic()
        statuses = wait(start(Job(dataset, work / f"whole{ranks}", ranks)), GIVEN_UP_AFTER)
        assert statuses == [0] * ranks, f"the undisturbed run ended with {statuses}: {work}/whole{ranks}"
        durations[ranks] = time.monotonic() - begin
    good = 0
    for i in range(runs):
        ranks = 1 + i % 2
        job = Job(dataset, work / f"killed{i}", ranks)
        ended, told = disturbed(job, durations[ranks], draw)
        faults = differences(job.output, work / f"whole{ranks}") if ended else ["it did not end"]
        good += not faults
        print(f"run {i}, {ranks} processes: {'; '.join(told)}: {faults or 'identical'}", flush=True)
    return good


def campaign_of_damages(whole: Path, work: Path, damages: int, draw: random.Random) -> int:
    """How many flipped bits and truncations of the newest checkpoint were found, and the one before taken."""
    folder = CheckpointFolder(work / "damaged", keep=2)
    state = read_checkpoint(whole / "last.pth")
    folder.save_last({**state, "step": 1})
    folder.save_last({**state, "step": 2})
    intact = folder.last.read_bytes()
    logging.getLogger("src").setLevel(logging.ERROR)  # it warns of each damaged file
    good = 0
    for _ in range(damages):
        spoilt = bytearray(intact)
        if draw.random() < 0.8:
            bit = draw.randrange(8 * len(spoilt))
            spoilt[bit // 8] ^= 1 << bit % 8
        else:
            del spoilt[draw.randrange(len(spoilt)) :]
        folder.last.write_bytes(spoilt)
        found = folder.newest_good()
        good += found is not None and found[1]["step"] == 1
    return good


def campaign_of_restarts(dataset: Path, work: Path, restarts: int, draw: random.Random) -> int:
    """How many runs under `torchrun --max-restarts=1` ended as they should after one rank was killed."""
    good = 0
    for i in range(restarts):
        job = Job(dataset, work / f"restarted{i}", 2)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["--max-restarts=1", "train.py", "-c", str(CONFIG), "-u", *job.overrides()]
        job.output.mkdir(parents=True)
        with (job.output / "torchrun.txt").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            agent = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
            while agent.poll() is None and not (job.output / "last.pth").exists():
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 1.5))
            workers = [int(pid) for pid in children_of(agent.pid)]
            if workers:
                os.kill(draw.choice(workers), signal.SIGKILL)
            status = agent.wait(GIVEN_UP_AFTER)
        faults = differences(job.output, work / "whole2") if status == 0 else [f"status {status}"]
        good += not faults
        print(f"restart {i}, killed one of {len(workers)} workers: {faults or 'identical'}", flush=True)
    return good


def children_of(pid: int) -> list[str]:
    """Process ids of a process's children."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def main() -> int:
    """Run the three campaigns and say how many cases held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=40, help="runs that are killed and resumed")
    parser.add_argument("--damages", type=int, default=1000, help="flipped bits and truncations")
    parser.add_argument("--restarts", type=int, default=20, help="automatic restarts by torchrun")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the bits")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_demo_dataset(work / "dataset", DemoSettings(num_train=16, num_val=6, size=64, seed=3))
        gc.freeze()  # what was imported here is no work for the collectors of forked processes
        begin = time.monotonic()
        kills = campaign_of_kills(work / "dataset", work, args.runs, draw)
        damages = campaign_of_damages(work / "whole1", work, args.damages, draw)
        restarts = campaign_of_restarts(work / "dataset", work, args.restarts, draw)
    told = {
        "identical after kills": [kills, args.runs],
        "damages found": [damages, args.damages],
        "restarts that ended well": [restarts, args.restarts],
    }
    print(json.dumps({**told, "seconds": round(time.monotonic() - begin), "torch": torch.__version__}))
    return 0 if all(good == asked for good, asked in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
