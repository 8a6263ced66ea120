"""Starts `distributed_toy.py` as a user starts a run, and collects what it says."""

import os
import subprocess
import sys
from pathlib import Path

TOY = Path(__file__).with_name("distributed_toy.py")
TIMEOUT_S = 120  # of a loaded machine; what hangs waits ten minutes


def launch(options: list[str], *, fault: str, rank: str = "0", step: int = 3) -> "subprocess.Popen[str]":
    """`fault` happens on `rank` before `step`, under torchrun with `options`."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, str(TOY), fault, rank, str(step)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_ranks(fault: str, *, rank: str = "0", step: int = 3) -> tuple[list[str], str]:
    """Lines of stdout, sorted, and stderr, of two ranks on one node."""
    run = launch(["--standalone", "--nproc-per-node=2"], fault=fault, rank=rank, step=step)
    out, err = run.communicate(timeout=TIMEOUT_S)
    return sorted(out.splitlines()), err
