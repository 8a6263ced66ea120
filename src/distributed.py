"""Ranks of one run: start and end, what they agree on, and their seeds."""

import datetime
import logging
import os
import random
import re

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

logger = logging.getLogger(__name__)

TIMEOUT = datetime.timedelta(minutes=60)  # ranks wait while the main one scores a large validation set


def start(device: str | None = None) -> torch.device:
    """Join the process group that torchrun describes, if there is one.

    NCCL where the ranks have a GPU each, gloo otherwise. The GPU is chosen by LOCAL_RANK, so that several
    nodes work.

    Args:
        device: What the user asked for ("cpu", "cuda", "cuda:1"); None takes a GPU where there is one.

    Returns:
        The device of this process.

    Raises:
        ValueError: A GPU is asked for and there is none, or there are more local ranks than GPUs.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cpu|cuda(:\d+)?", chosen) is None:
        raise ValueError(f"device '{chosen}' is not known; cpu, cuda and cuda:N are allowed")
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if chosen.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError(f"device '{chosen}' was asked for, but torch sees no GPU; use -d cpu")
        if launched and local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"local rank {local_rank} has no GPU: torch sees {torch.cuda.device_count()}; "
                "lower --nproc_per_node or use -d cpu"
            )
        if launched and chosen != "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise ValueError(f"device '{chosen}' would put all processes on one GPU; use -d cuda")
        if chosen == "cuda":
            chosen = f"cuda:{local_rank}"
        torch.cuda.set_device(chosen)
    if launched and not dist.is_initialized():
        if chosen.startswith("cuda"):
            dist.init_process_group("nccl", timeout=TIMEOUT, device_id=torch.device(chosen))
        else:
            dist.init_process_group("gloo", timeout=TIMEOUT)
    return torch.device(chosen)


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_distributed() -> bool:
    """Whether this process is one of a group (of one or more)."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number in the run, 0 when alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes in the run."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait for every rank."""
    if is_distributed():
        dist.barrier()


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of `values` (any shape, floating) over all ranks, without gradient."""
    if world_size() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / world_size()


def gather_rows(rows: Tensor) -> list[Tensor]:
    """`rows` [N_r, ...] of every rank in rank order; N_r may differ between ranks and may be 0.

    Tensors are padded to the longest and gathered in one collective: nothing is pickled.
    """
    if world_size() == 1:
        return [rows]
    count = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    longest = max(int(c) for c in counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded)
    return [g[: int(c)] for g, c in zip(gathered, counts, strict=True)]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, alike on every rank: all build the same model.

    What ranks must draw apart, a step's noise and a picture's transforms, is seeded where it is drawn.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def broadcast_int(value: int) -> int:
    """Rank 0's `value`, on every rank."""
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([value], device=device)
    dist.broadcast(shared, 0)
    return int(shared)
