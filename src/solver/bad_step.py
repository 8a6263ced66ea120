"""A step whose losses or gradients were not finite: kept in a file, and repeated from it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ..data import to_device_images
from ..distributed import rank, seed_everything
from ..structures import Batch, Targets
from .checkpoint import read_checkpoint, save_checkpoint
from .guidance import Guidance
from .precision import Precision
from .step import Criterion, StepResult, TrainingStep

NUM_TOLD = 5


class BadStep(NamedTuple):
    """What a skipped step was made of, on one rank; it left weights and statistics as they were.

    Attributes:
        batches: Its micro-batches, as the loader gave them.
        size_hw: Size that they were resized to; None where they were not.
        step: Optimizer steps attempted before it in the run.
        epoch: The epoch, from 0.
        seed: What all random generators were seeded with for it.
        rank: The rank.
        losses: This rank's losses by name.
        gradients: Parameters whose gradients (means over the ranks) were not finite.
        frozen: Parameters that did not train.
        scale: What the loss was multiplied by; 1 without scaling.
        model: The model's state dict.
        config: The experiment as YAML.
        guidance: What a checkpoint keeps of it; None without one.
    """

    batches: Sequence[Batch]
    size_hw: tuple[int, int] | None
    step: int
    epoch: int
    seed: int
    rank: int
    losses: Mapping[str, float]
    gradients: Sequence[str]
    frozen: Sequence[str]
    scale: float
    model: Mapping[str, Any]
    config: str
    guidance: Mapping[str, Any] | None = None


def bad_step(
    model: nn.Module,
    step: TrainingStep,
    result: StepResult,
    batches: Sequence[Batch],
    *,
    size_hw: tuple[int, int] | None,
    epoch: int,
    seed: int,
    config: str,
) -> BadStep:
    """The step that `step` has just skipped; what is not found in the arguments is as `BadStep` says."""
    scaling = step.scaler.state_dict()
    return BadStep(
        batches=batches,
        size_hw=size_hw,
        step=int(step.schedule.last_epoch) - 1,
        epoch=epoch,
        seed=seed,
        rank=rank(),
        losses=dict(zip(result.names, result.losses.tolist(), strict=True)),
        gradients=bad_gradients(model),
        frozen=[name for name, p in model.named_parameters() if not p.requires_grad],
        # skipping has lowered it
        scale=scaling["scale"] / scaling["backoff_factor"] if scaling else 1.0,
        model=model.state_dict(),
        config=config,
        guidance=step.guidance.state_dict() if step.guidance else None,
    )


def write_bad_step(path: Path, bad: BadStep) -> None:
    """Write `bad` to `path`, a checkpoint file whose weights other tools can read too.

    Raises:
        ValueError: The file cannot be written.
    """
    step = {field: value for field, value in bad._asdict().items() if field not in ("model", "config")}
    save_checkpoint(path, {"model": bad.model, "config": bad.config, "bad_step": step})


def read_bad_step(path: Path) -> BadStep:
    """What `write_bad_step` wrote to `path`.

    Raises:
        ValueError: There is no such file, it is damaged, or of another kind.
    """
    content = read_checkpoint(path)
    if "bad_step" not in content:
        raise ValueError(f"{path}: holds no skipped step; give a file that train.py named as it stopped")
    step = content["bad_step"]
    batches = [Batch(images, Targets(*targets)) for images, targets in step["batches"]]
    return BadStep(**{**step, "batches": batches, "model": content["model"], "config": content["config"]})


def bad_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters of `model` whose gradients are not finite, in its order."""
    found = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    flags = torch.stack([grad.isfinite().all() for _, grad in found]).tolist() if found else []
    return [name for (name, _), finite in zip(found, flags, strict=True) if not finite]


def bad_words(losses: Mapping[str, float], gradients: Sequence[str]) -> str:
    """What was not finite, in one line: losses by name, and the first few of the parameters."""
    bad = [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]
    return f"not finite are {len(bad)} losses{_first(bad)} and {len(gradients)} gradients{_first(gradients)}"


def why_stopped(bad: BadStep, limit: int, *, dump: Path, newest: Path) -> str:
    """What a user reads when `limit` steps in a row were skipped, `bad` the last of them.

    Args:
        bad: The step.
        limit: The setting.
        dump: The file that holds it.
        newest: Where the run's newest checkpoint is, if it has written one.
    """
    source = f"Go on from {newest}" if newest.exists() else "Start anew"
    pictures = [i for batch in bad.batches for i in batch.targets.image_ids]
    return (
        f"{limit} steps in a row were skipped (max_bad_steps), the last one step {bad.step} with pictures "
        f"{pictures}: {bad_words(bad.losses, bad.gradients)}. {dump} holds it, and `python "
        f"tools/replay_step.py {dump}` repeats it. {source} with a lower learning rate "
        "(-u optimizer.lr=...) or without --use-amp"
    )


def _first(words: Sequence[str]) -> str:
    more = ", ..." if len(words) > NUM_TOLD else ""
    return f" ({', '.join(words[:NUM_TOLD])}{more})" if words else ""


def replay(
    bad: BadStep,
    model: nn.Module,
    criterion: Criterion,
    precision: Precision,
    device: torch.device,
    guidance: Guidance | None = None,
) -> StepResult:
    """Do the step again, on one process, up to the update; its gradients stay on `model`.

    In a run of several ranks the other ranks' share of gradients, normalisers and synchronised batch
    statistics is missing here: the losses then differ by a factor near 1, and a fault of another rank's
    pictures is in that rank's file.

    Args:
        bad: The step.
        model: One of its experiment, on `device`; it gets the step's weights.
        criterion: Likewise.
        precision: Likewise.
        device: Where to compute.
        guidance: Likewise; it gets what the step's had learnt.

    Raises:
        RuntimeError: The model is another one.
        ValueError: The guidance is another one, or the file does not hold it.
    """
    model.load_state_dict(bad.model)
    if guidance is not None:
        if bad.guidance is None:
            raise ValueError(
                "the skipped step holds nothing of its distillation or gram_anchoring; replay it without, by "
                "-u distillation=null gram_anchoring=null"
            )
        guidance.load_state_dict(bad.guidance)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in bad.frozen)
    model.train()
    optimizer = torch.optim.SGD((guidance.guided if guidance else model).parameters(), lr=0.0)
    schedule = LambdaLR(optimizer, lambda _: 1.0)
    step = TrainingStep(
        model, criterion, optimizer, schedule, None, precision, clip_max_norm=0.0, guidance=guidance
    )
    if step.scaler.is_enabled():
        step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": bad.scale})
    on_device = [batch.to(device) for batch in bad.batches]
    seed_everything(bad.seed)
    return step(step.callee, [(to_device_images(b.images, bad.size_hw), b.targets) for b in on_device])
