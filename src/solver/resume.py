"""What a checkpoint keeps of a run, and how a run goes on from one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .. import distributed
from .checkpoint import read_checkpoint
from .random_state import random_state, set_random_state
from .step import TrainingStep

OWN_SETTINGS = ("initial_lr", "weight_decay", "betas")
NEEDED = frozenset({"model", "ema", "optimizer", "lr_scheduler", "scaler", "epoch", "best"})


def run_state(model: nn.Module, step: TrainingStep, epoch: int, best: dict[str, float]) -> dict[str, Any]:
    """Everything that changes in a run, after `epoch` epochs, as plain values and tensors."""
    return {
        "model": model.state_dict(),
        "ema": step.ema.state_dict() if step.ema else None,
        "optimizer": step.optimizer.state_dict(),
        "lr_scheduler": step.schedule.state_dict(),
        "scaler": step.scaler.state_dict(),
        "epoch": epoch,
        "step": int(step.schedule.last_epoch),
        "best": best,
        "rng": random_state(),
    }


def restore(path: Path, model: nn.Module, step: TrainingStep) -> tuple[int, dict[str, float]]:
    """Put `model` and `step` where the checkpoint at `path` left them.

    Returns:
        The number of epochs done, and the best numbers so far.

    Raises:
        ValueError: The file holds weights only, or is of another model or other parameter groups.
    """
    checkpoint = read_checkpoint(path)
    missing = sorted(NEEDED - checkpoint.keys())
    if missing:
        raise ValueError(
            f"{path} holds no {', '.join(missing)}: training cannot go on from it; "
            "start from its weights with -t instead of -r"
        )
    groups = step.optimizer.param_groups, checkpoint["optimizer"]["param_groups"]
    now, then = ([group.get("param_names") for group in side] for side in groups)
    try:
        if now != then:  # torch would compare their sizes alone
            raise ValueError("its parameter groups are others")
        model.load_state_dict(checkpoint["model"])
        if step.ema is not None:
            if checkpoint["ema"] is None:
                raise ValueError("it was trained without an average (use_ema: False)")
            step.ema.load_state_dict(checkpoint["ema"])
        _load_moments(step.optimizer, checkpoint["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} does not fit this experiment: {str(error).splitlines()[0]}. Resume with the "
            "configuration it was trained with (config.yml beside it), or use -t for its weights alone"
        ) from error
    own_rates = step.schedule.base_lrs
    step.schedule.load_state_dict(checkpoint["lr_scheduler"])
    step.schedule.base_lrs = own_rates
    if checkpoint["scaler"] and step.scaler.is_enabled():
        step.scaler.load_state_dict(checkpoint["scaler"])
    if distributed.is_main() and "rng" in checkpoint:  # its own; the other ranks' draws stay apart
        set_random_state(checkpoint["rng"])
    return int(checkpoint["epoch"]), dict(checkpoint["best"])


def stored_seed(checkpoint: Mapping[str, Any]) -> int | None:
    """The seed of the run that wrote `checkpoint`, drawn or stated; None where it does not say."""
    found = re.search(r"^seed: (\d+)$", str(checkpoint.get("config") or ""), re.MULTILINE)
    return int(found.group(1)) if found else None


def _load_moments(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over the moments, but keep the rates that the experiment says now: `-u optimizer.lr` counts."""
    own = [{key: group[key] for key in OWN_SETTINGS} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
