"""Learning rates over a run, as a pure function of the optimizer step."""

import logging
import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

logger = logging.getLogger(__name__)

ScheduleKind = Literal["MultiStepLR", "CosineLR", "FlatCosineLR"]
WarmupKind = Literal["LinearWarmup", "QuadraticWarmup"]

LONGEST_WARMUP = 0.2
"""Largest share of a run that its warm-up may take."""


def effective_warmup_steps(warmup_steps: int, *, total_steps: int) -> int:
    """`warmup_steps`, but at most a fifth of the run: a small dataset would else never train at full rate."""
    return min(warmup_steps, int(total_steps * LONGEST_WARMUP))


def learning_rate_factor(
    step: int,
    *,
    total_steps: int,
    steps_per_epoch: int,
    kind: ScheduleKind = "MultiStepLR",
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    flat_epochs: int | None = None,
    no_aug_epochs: int = 0,
    warmup: WarmupKind | None = None,
    warmup_steps: int = 0,
) -> float:
    """What the base learning rate is multiplied by at optimizer step `step`, the first being 0.

    Args:
        step: Steps already taken.
        total_steps: Steps of the whole run; after them the factor stays at its last value.
        steps_per_epoch: Optimizer steps of one epoch.
        kind: MultiStepLR multiplies by gamma at each milestone. CosineLR falls along half a cosine over the
            run.
            FlatCosineLR is constant, falls along half a cosine, and is constant again.
        milestones: Epochs at which MultiStepLR acts.
        gamma: Factor of each milestone; or the share of the base rate that the cosine ends at.
        flat_epochs: Epochs before FlatCosineLR's fall; None takes half of the run.
        no_aug_epochs: Epochs after its fall, at the end of the run.
        warmup: How the rate rises at first: (s + 1) / n over n steps, linear or squared. It multiplies what
            `kind` gives.
        warmup_steps: Its length n, shortened as `effective_warmup_steps` says.
    """
    factor = _warmup_factor(step, warmup, effective_warmup_steps(warmup_steps, total_steps=total_steps))
    if kind == "MultiStepLR":
        passed = sum(step >= milestone * steps_per_epoch for milestone in milestones)
        return factor * float(gamma**passed)
    start, end = 0, total_steps
    if kind == "FlatCosineLR":
        start, end = _cosine_span(total_steps, steps_per_epoch, flat_epochs, no_aug_epochs)
    progress = min(max((step - start) / max(end - start, 1), 0.0), 1.0)
    return factor * (gamma + (1 - gamma) * 0.5 * (1 + math.cos(math.pi * progress)))


def build_schedule(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,
    kind: ScheduleKind = "MultiStepLR",
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    flat_epochs: int | None = None,
    no_aug_epochs: int = 0,
    warmup: WarmupKind | None = None,
    warmup_steps: int = 0,
) -> LambdaLR:
    """A schedule to be stepped once after each optimizer step; `learning_rate_factor` explains the arguments.

    It multiplies each group's `initial_lr`; `schedule.base_lrs[i]` may be changed between steps. Its state
    dict holds plain values only.

    Raises:
        ValueError: An unknown kind, a length below its minimum, or flat epochs that leave no room to fall.
    """
    _check(kind, warmup, total_steps, steps_per_epoch, gamma, warmup_steps)
    if kind == "FlatCosineLR":
        _cosine_span(total_steps, steps_per_epoch, flat_epochs, no_aug_epochs)
    shortened = effective_warmup_steps(warmup_steps, total_steps=total_steps)
    if warmup and shortened < warmup_steps:
        logger.warning(
            "the warm-up of %d steps is shortened to %d, a fifth of the run's %d steps",
            warmup_steps,
            shortened,
            total_steps,
        )

    def factor(step: int) -> float:
        return learning_rate_factor(
            step,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            kind=kind,
            milestones=milestones,
            gamma=gamma,
            flat_epochs=flat_epochs,
            no_aug_epochs=no_aug_epochs,
            warmup=warmup,
            warmup_steps=warmup_steps,
        )

    return LambdaLR(optimizer, factor)


def _warmup_factor(step: int, warmup: WarmupKind | None, num_steps: int) -> float:
    if warmup is None or step + 1 >= num_steps:
        return 1.0
    share = (step + 1) / num_steps
    return share if warmup == "LinearWarmup" else share**2


def _cosine_span(
    total_steps: int, steps_per_epoch: int, flat_epochs: int | None, no_aug_epochs: int
) -> tuple[int, int]:
    """First and last step of FlatCosineLR's fall."""
    start = total_steps // 2 if flat_epochs is None else flat_epochs * steps_per_epoch
    end = total_steps - no_aug_epochs * steps_per_epoch
    if start < 0 or no_aug_epochs < 0 or start >= end:
        flat = "half of the run" if flat_epochs is None else flat_epochs
        raise ValueError(
            f"lr_scheduler: FlatCosineLR with flat_epochs {flat} and no_aug_epochs {no_aug_epochs} leaves no "
            f"epoch to fall in: the run has {total_steps / steps_per_epoch:g}; lower them or raise epochs"
        )
    return start, end


def _check(
    kind: str, warmup: str | None, total_steps: int, steps_per_epoch: int, gamma: float, warmup_steps: int
) -> None:
    if kind not in get_args(ScheduleKind):
        raise ValueError(f"lr_scheduler.type is '{kind}'; it may be {', '.join(get_args(ScheduleKind))}")
    if warmup is not None and warmup not in get_args(WarmupKind):
        raise ValueError(
            f"lr_warmup_scheduler.type is '{warmup}'; it may be {', '.join(get_args(WarmupKind))}"
        )
    if total_steps < 1 or steps_per_epoch < 1 or warmup_steps < 0:
        raise ValueError(
            f"a schedule of {total_steps} steps, {steps_per_epoch} an epoch, {warmup_steps} of warm-up: it "
            "needs at least 1 step, 1 an epoch and 0 of warm-up"
        )
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"lr_scheduler.gamma is {gamma}; it may be 0 to 1")
