"""`total_batch_size: auto`: as many pictures at a time as the memory holds.

Legend: B pictures of one process, H and W the largest size that the run trains at.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import distributed
from ..structures import Targets
from .precision import Precision
from .step import Criterion

logger = logging.getLogger(__name__)

RECIPE = 32
"""Pictures in a step of D-FINE's recipe; the learning rates are made for it."""
USABLE = 0.8
"""Share of the free memory that a run may plan with: an allocator wastes some."""
STATES = 4
"""Copies of the weights that training needs besides them: gradients, AdamW's two moments, the average."""
NUM_OBJECTS = 20
CGROUP = Path("/sys/fs/cgroup")  # where a container of Linux (version 2) finds what it may use


class BatchPlan(NamedTuple):
    """How a step of the recipe is cut.

    Attributes:
        total_batch_size: Pictures in a batch of all processes.
        accumulate_steps: Batches in an optimizer step.
    """

    total_batch_size: int
    accumulate_steps: int


def plan_batch(measure: Callable[[int], int], free: int, fixed: int, world_size: int) -> BatchPlan:
    """The recipe's pictures in as few batches as each process has memory for.

    Args:
        measure: Bytes that a step of so many pictures of one process takes, besides `fixed`.
        free: Bytes that this process may use.
        fixed: Bytes that training takes whatever the batch.
        world_size: Processes; all call this, and take the smallest number that any of them finds.

    Raises:
        ValueError: Not even one picture fits.
    """
    share = max(1, RECIPE // world_size)
    one = measure(1)
    each = max(measure(2) - one, 1)
    fitting = 1 + (int(free * USABLE) - fixed - one) // each
    fitting = min(int(found) for found in distributed.gather_rows(torch.tensor([fitting])))
    if fitting < 1:
        raise ValueError(
            f"total_batch_size is auto, but not even one picture fits: a step needs about "
            f"{(fixed + one) / 2**30:.1f} GiB and {free * USABLE / 2**30:.1f} GiB may be used; lower "
            "eval_spatial_size, or add `gradient_checkpointing: True` to the backbone"
        )
    batch = max(size for size in range(1, share + 1) if share % size == 0 and size <= fitting)
    plan = BatchPlan(batch * world_size, share // batch)
    logger.info(
        "total_batch_size is %d, accumulate_steps %d: a picture takes %.2f GiB of the %.1f GiB that are free",
        *(plan.total_batch_size, plan.accumulate_steps, each / 2**30, free / 2**30),
    )
    return plan


def probe(
    model: nn.Module,
    criterion: Criterion,
    precision: Precision,
    device: torch.device,
    *,
    size_hw: tuple[int, int],
) -> BatchPlan:
    """Measure training steps of `model`, which is not needed afterwards, with all of it trained.

    A GPU is asked for its peak. On a CPU the bytes that autograd keeps are counted, and taken twice, for what
    the backward pass makes of them.

    Raises:
        ValueError: Not even one picture of `size_hw` fits.
    """
    model.to(device).train()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())

    def measure(batch_size: int) -> int:
        images = torch.rand(batch_size, 3, *size_hw, device=device)
        run = _step_of(model, criterion, precision, images, _objects(batch_size, size_hw).to(device))
        return _peak_of(run, device) if device.type == "cuda" else 2 * kept_bytes(model, run)

    return plan_batch(measure, free_memory(device), STATES * weights, distributed.world_size())


def _objects(batch_size: int, size_hw: tuple[int, int]) -> Targets:
    total = batch_size * NUM_OBJECTS
    return Targets(
        torch.full((total, 4), 0.25),
        torch.zeros(total, dtype=torch.int64),
        (NUM_OBJECTS,) * batch_size,
        tuple(range(batch_size)),
        (size_hw,) * batch_size,
    )


def _step_of(
    model: nn.Module, criterion: Criterion, precision: Precision, images: Tensor, targets: Targets
) -> Callable[[], None]:
    def run() -> None:
        with precision.autocast():
            output = model(images, targets)
        torch.stack(list(criterion(output, targets).values())).sum().backward()  # type: ignore[no-untyped-call, unused-ignore]
        model.zero_grad(set_to_none=True)

    return run


def _peak_of(run: Callable[[], None], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        run()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[1]  # as much as there is
    return torch.cuda.max_memory_allocated(device) - before


def kept_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that autograd keeps of `run` for its backward pass: each storage once, none of the model's."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no later one takes its place

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on `device`; a machine's memory is shared by its processes."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    told = Path("/proc/meminfo")  # Linux
    if told.is_file():
        sizes = dict(line.split(":", 1) for line in told.read_text().splitlines())
        free = min([int(sizes["MemAvailable"].split()[0]) * 1024, *_left_in_container()])
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _left_in_container() -> list[int]:
    """Bytes below the container's limit, if it has one; cached files count as free, as in MemAvailable."""
    limit, used, details = (CGROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if not limit.is_file() or not (most := limit.read_text().strip()).isdecimal():  # "max": no limit
        return []
    bytes_of = dict(line.split() for line in details.read_text().splitlines())
    cached = int(bytes_of["active_file"]) + int(bytes_of["inactive_file"])
    return [max(int(most) - int(used.read_text()) + cached, 0)]
