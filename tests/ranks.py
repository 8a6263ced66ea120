"""Several gloo ranks on this machine, for tests of what ranks do together."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing


def on_ranks(work: Callable[..., Any], world_size: int, folder: Path, *args: Any) -> list[Any]:
    """What `work(rank, *args)` returns on each of `world_size` ranks, in rank order.

    Results travel by `torch.save` through `folder`, which must be new; an error of a rank is raised here.
    """
    multiprocessing.spawn(_rank, (work, world_size, folder, args), nprocs=world_size)
    return [torch.load(folder / f"{rank}.pth") for rank in range(world_size)]


def _rank(rank: int, work: Callable[..., Any], world_size: int, folder: Path, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    torch.save(work(rank, *args), folder / f"{rank}.pth")
    dist.barrier()
    # A gloo thread that lets go of its last tensor while the interpreter ends would abort the process.
    os._exit(0)
