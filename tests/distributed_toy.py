"""A run of ten steps, whose faults are chosen on the command line; started by the tests, never collected.

Usage: distributed_toy.py FAULT RANK STEP; the fault happens on this rank (or "all") before this step, unless
torchrun has restarted the workers.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist

from src import distributed, door
from src.solver.interrupt import StopRequest

STEPS = 10
FAULT, RANK, STEP = sys.argv[1:]


def say(*words: object) -> None:
    """One write a line: two ranks share the pipe."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def meet_fault(step: int) -> None:
    rank = distributed.rank()
    if step != int(STEP) or RANK not in ("all", str(rank)) or distributed.restart_count() > 0:
        return
    if FAULT == "error":
        raise ArithmeticError(f"rank {rank} cannot go on")
    if FAULT == "user":
        raise ValueError("no such picture: 7.jpg")
    if FAULT == "wait":
        say("rank", rank, "waits")
        while not stop.local():
            time.sleep(0.05)
    if FAULT in ("kill", "term"):
        os.kill(os.getpid(), signal.SIGKILL if FAULT == "kill" else signal.SIGTERM)


def main() -> None:
    if FAULT == "early":
        raise ValueError("no such config: x.yml")
    distributed.start("cpu")
    rank, count = distributed.rank(), distributed.restart_count()
    say("rank", rank, "local", os.environ["LOCAL_RANK"], "restarts", count)
    for step in range(STEPS):
        meet_fault(step)
        total = torch.tensor(rank + 1)
        dist.all_reduce(total)
        number = stop.agreed()
        if number is not None:
            leave(f"after step {step}", number)
    meet_fault(STEPS)
    number = stop.agreed(at_once=True)
    if number is not None:
        leave("at the end", number)
    say("rank", rank, "finished with", int(total))
    distributed.stop()


def leave(where: str, number: int) -> None:
    say("rank", distributed.rank(), "stopped", where)
    distributed.barrier()
    raise door.Interrupted(number)


def run() -> None:
    with stop:
        main()


stop = StopRequest()
sys.exit(door.run(run))
