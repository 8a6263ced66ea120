"""Learning rates over a run, as a pure function of the optimizer step."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

logger = logging.getLogger(__name__)

ScheduleKind = Literal["MultiStepLR", "CosineLR", "FlatCosineLR"]
WarmupKind = Literal["LinearWarmup", "QuadraticWarmup"]
Factor = Callable[[int], float]

LONGEST_WARMUP = 0.2
"""Largest share of a run that its warm-up may take."""


def effective_warmup_steps(warmup_steps: int, *, total_steps: int) -> int:
    """`warmup_steps`, but at most a fifth of the run: a small dataset would else never train at full rate."""
    return min(warmup_steps, int(total_steps * LONGEST_WARMUP))


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
    """A schedule to be stepped once after each optimizer step.

    It multiplies each group's `initial_lr`; `schedule.base_lrs[i]` may be changed between steps. Its state
    dict holds plain values only.

    Args:
        optimizer: Whose rates it sets.
        total_steps: Steps of the whole run; after them the rates stay at their last values.
        steps_per_epoch: Optimizer steps of one epoch.
        kind: MultiStepLR multiplies by gamma at each milestone. CosineLR falls along half a cosine over the
            run. FlatCosineLR is constant, falls along half a cosine, and is constant again.
        milestones: Epochs at which MultiStepLR acts.
        gamma: Factor of each milestone; or the share of the base rate that the cosine ends at.
        flat_epochs: Epochs before FlatCosineLR's fall; None takes half of the run.
        no_aug_epochs: Epochs after its fall, at the end of the run.
        warmup: How the rate rises at first: (s + 1) / n over n steps, linear or squared. It multiplies what
            `kind` gives.
        warmup_steps: Its length n, shortened as `effective_warmup_steps` says.

    Raises:
        ValueError: An unknown kind, a length below its minimum, or flat epochs that leave no room to fall.
    """
    _check(kind, warmup, total_steps, steps_per_epoch, gamma, warmup_steps)
    rise = _warmup(warmup, warmup_steps, total_steps)
    if kind == "MultiStepLR":
        fall = _multi_step([milestone * steps_per_epoch for milestone in milestones], gamma)
    elif kind == "CosineLR":
        fall = _cosine(0, total_steps, gamma)
    else:
        fall = _cosine(*_flat_span(total_steps, steps_per_epoch, flat_epochs, no_aug_epochs), gamma)
    return LambdaLR(optimizer, lambda step: rise(step) * fall(step))


def set_rates(optimizer: Optimizer, schedule: LambdaLR) -> None:
    """Give each group the rate of the present step, where `schedule.base_lrs` changed since the last one."""
    for group, base, factor in zip(
        optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(schedule.last_epoch)


def _warmup(warmup: WarmupKind | None, stated_steps: int, total_steps: int) -> Factor:
    """The rise over `stated_steps`, or over what the run has room for, which is said."""
    steps = effective_warmup_steps(stated_steps, total_steps=total_steps)
    if warmup and steps < stated_steps:
        logger.warning(
            "the warm-up of %d steps is shortened to %d, a fifth of the run's %d steps",
            stated_steps,
            steps,
            total_steps,
        )
    power = {None: 0, "LinearWarmup": 1, "QuadraticWarmup": 2}[warmup]
    return lambda step: float(min((step + 1) / max(steps, 1), 1.0) ** power)


def _multi_step(milestones: Sequence[int], gamma: float) -> Factor:
    return lambda step: float(gamma ** sum(step >= milestone for milestone in milestones))


def _cosine(start: int, end: int, gamma: float) -> Factor:
    """From 1 at step `start` along half a cosine to gamma at step `end`."""

    def factor(step: int) -> float:
        progress = min(max((step - start) / (end - start), 0.0), 1.0)
        return gamma + (1 - gamma) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def _flat_span(
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
