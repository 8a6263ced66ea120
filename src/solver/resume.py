"""What a checkpoint keeps of a run, and how a run goes on from one."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import distributed
from ..optim import set_rates
from .batch_size import BatchPlan
from .checkpoint import Checkpoint
from .checkpoint_folder import CheckpointFolder
from .random_state import random_state, set_random_state
from .step import TrainingStep

logger = logging.getLogger(__name__)

OWN_SETTINGS = ("initial_lr", "weight_decay", "betas")
NEEDED = frozenset({"model", "ema", "optimizer", "lr_scheduler", "scaler", "epoch", "best"})


@dataclass
class RunState:
    """Where a run stands between two optimizer steps, beside weights and moments.

    Attributes:
        epoch: Epochs that are done, with their evaluation.
        step_in_epoch: Optimizer steps done of the next one.
        best: The numbers of the best evaluation so far, and its `epoch`.
        best_weights: That model's state dict on the CPU, where a later stage starts from it. Not read from
            `best.pth`: a run that goes on from an older checkpoint would find a later best there.
        stale_evaluations: Evaluations since then.
        bad_steps: Steps in a row, up to now, whose gradients were not finite.
        window: This rank's losses [number of losses] of each step since the last line of the log, but for
            skipped ones.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] | None = None
    stale_evaluations: int = 0
    bad_steps: int = 0
    window: list[Tensor] = field(default_factory=list)


def stored_state(model: nn.Module, step: TrainingStep, run: RunState, steps_per_epoch: int) -> dict[str, Any]:
    """Everything that changes in a run, as plain values and tensors; every rank must ask for it at once."""
    window = None
    if run.window:  # as long on every rank
        window = torch.stack(distributed.gather_rows(torch.stack(run.window))).cpu()
    return {
        "model": model.state_dict(),
        "ema": step.ema.state_dict() if step.ema else None,
        "optimizer": step.optimizer.state_dict(),
        "lr_scheduler": step.schedule.state_dict(),
        "scaler": step.scaler.state_dict(),
        "epoch": run.epoch,
        "step_in_epoch": run.step_in_epoch,
        "steps_per_epoch": steps_per_epoch,
        "step": int(step.schedule.last_epoch),
        "best": run.best,
        "best_weights": run.best_weights,
        "stale_evaluations": run.stale_evaluations,
        "bad_steps": run.bad_steps,
        "window": window,
        "rng": random_state(),
        **({"guidance": step.guidance.state_dict()} if step.guidance else {}),
    }


def restore(stored: Checkpoint, model: nn.Module, step: TrainingStep, steps_per_epoch: int) -> RunState:
    """Put `model` and `step` where the checkpoint left them, and say where that is.

    Raises:
        ValueError: The file holds weights only, or is of another model, other parameter groups or another
            number of steps an epoch.
    """
    path, checkpoint = stored
    missing = sorted(NEEDED - checkpoint.keys())
    if missing:
        raise ValueError(
            f"{path} holds no {', '.join(missing)}: training cannot go on from it; "
            "start from its weights with -t instead of -r"
        )
    then = checkpoint.get("steps_per_epoch", steps_per_epoch)
    if then != steps_per_epoch:
        raise ValueError(
            f"{path} is of a run with {then} steps an epoch, and there are {steps_per_epoch} now: go on with "
            "the training set, total_batch_size and accumulate_steps of config.yml beside it, or take its "
            "weights alone with -t"
        )
    _load(path, checkpoint, model, step)
    if distributed.is_main() and "rng" in checkpoint:  # a step's draws are seeded anew, on every rank
        set_random_state(checkpoint["rng"])
    return RunState(
        epoch=int(checkpoint["epoch"]),
        step_in_epoch=int(checkpoint.get("step_in_epoch", 0)),
        best=dict(checkpoint["best"]),
        best_weights=checkpoint.get("best_weights"),
        stale_evaluations=int(checkpoint.get("stale_evaluations", 0)),
        bad_steps=int(checkpoint.get("bad_steps", 0)),
        window=_own_window(checkpoint.get("window"), model),
    )


def newest_checkpoint(files: CheckpointFolder) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run's folder, the same on every rank; None where there is none.

    Raises:
        ValueError: All are damaged, or the ranks do not see the same one.
    """
    found, folder = files.newest_good(), files.folder
    step = -1 if found is None else int(found.content.get("step", -1))
    if distributed.broadcast_int(step) != step:
        raise ValueError(
            f"{folder} holds another newest checkpoint here than on the main process: put output_dir on a "
            "file system that all nodes share, or name a checkpoint with -r"
        )
    if found is None:
        logger.info("there is no checkpoint in %s yet: the run starts from its beginning", folder)
    return found


def _load(path: Path, checkpoint: Mapping[str, Any], model: nn.Module, step: TrainingStep) -> None:
    groups = step.optimizer.param_groups, checkpoint["optimizer"]["param_groups"]
    now, then = ([group.get("param_names") for group in side] for side in groups)
    try:
        _load_guidance(checkpoint, step)
        if now != then:  # torch would compare their sizes alone
            raise ValueError("its parameter groups are others")
        model.load_state_dict(checkpoint["model"])
        if step.ema is not None:
            if checkpoint["ema"] is None:
                raise ValueError("it was trained without an average (use_ema: False)")
            step.ema.load_state_dict(checkpoint["ema"])
        _load_moments(step.optimizer, checkpoint["optimizer"])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(map(str.strip, str(error).splitlines()[:2]))  # the first of torch has none
        raise ValueError(
            f"{path} does not fit this experiment: {reason.rstrip('.')}. Resume with the "
            "configuration it was trained with (config.yml beside it), or use -t for its weights alone"
        ) from error
    own_rates = step.schedule.base_lrs
    step.schedule.load_state_dict(checkpoint["lr_scheduler"])
    step.schedule.base_lrs = own_rates
    set_rates(step.optimizer, step.schedule)
    if checkpoint["scaler"] and step.scaler.is_enabled():
        step.scaler.load_state_dict(checkpoint["scaler"])


def _load_guidance(checkpoint: Mapping[str, Any], step: TrainingStep) -> None:
    stored = checkpoint.get("guidance")
    if (stored is None) != (step.guidance is None):
        then, now = ("without", "has one of them") if step.guidance else ("with", "has neither")
        raise ValueError(f"it was trained {then} distillation or gram_anchoring, and this experiment {now}")
    if step.guidance is not None and stored is not None:
        step.guidance.load_state_dict(stored)


def _own_window(stored: Tensor | None, model: nn.Module) -> list[Tensor]:
    """This rank's part of [ranks, steps, losses]; the mean where another number of ranks wrote it."""
    if stored is None:
        return []
    of_as_many = len(stored) == distributed.world_size()
    own = stored[distributed.rank()] if of_as_many else stored.mean(0)
    return list(own.to(next(model.parameters()).device))


def stored_seed(checkpoint: Mapping[str, Any]) -> int | None:
    """The seed of the run that wrote `checkpoint`, drawn or stated; None where it does not say."""
    found = re.search(r"^seed: (\d+)$", str(checkpoint.get("config") or ""), re.MULTILINE)
    return int(found.group(1)) if found else None


def stored_batch_plan(checkpoint: Mapping[str, Any]) -> BatchPlan:
    """How the run that wrote `checkpoint` cut its steps.

    Raises:
        ValueError: It does not say.
    """
    try:
        config = yaml.safe_load(checkpoint["config"])
        return BatchPlan(int(config["train_dataloader"]["total_batch_size"]), int(config["accumulate_steps"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            "the checkpoint does not say how large its batches were: give a number in place of "
            "train_dataloader.total_batch_size=auto"
        ) from error


def _load_moments(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over the moments, but keep the rates that the experiment says now: `-u optimizer.lr` counts."""
    own = [{key: group[key] for key in OWN_SETTINGS} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
