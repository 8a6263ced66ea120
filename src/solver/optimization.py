"""From the settings of an experiment to the optimizer step that they describe."""

import logging

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import distributed
from ..core import Experiment
from ..optim import ModelEMA, Rule, build_schedule, fitting_decay, parameter_groups
from .guidance import Guidance
from .precision import Precision
from .step import Criterion, TrainingStep

logger = logging.getLogger(__name__)


def steps_of_epoch(num_batches: int, accumulate_steps: int) -> int:
    """Optimizer steps that an epoch's batches give.

    Raises:
        ValueError: They give not one.
    """
    if num_batches < accumulate_steps:
        raise ValueError(
            f"{num_batches} batches an epoch, under accumulate_steps={accumulate_steps}: "
            "lower accumulate_steps or train_dataloader.total_batch_size"
        )
    return num_batches // accumulate_steps


def build_step(
    settings: Experiment,
    model: nn.Module,
    criterion: Criterion,
    precision: Precision,
    *,
    steps_per_epoch: int,
    guidance: Guidance | None = None,
) -> TrainingStep:
    """Optimizer, schedule and average for `model`, which is already where it trains.

    Raises:
        ValueError: A rule of the parameter groups, or a number of the schedule, does not fit.
    """
    optimizer, falls, rises = settings.optimizer, settings.lr_scheduler, settings.lr_warmup_scheduler
    total_steps = settings.epochs * steps_per_epoch
    groups = parameter_groups(
        model,
        [Rule(rule.params, rule.lr, rule.weight_decay) for rule in optimizer.params],
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        layer_decay=optimizer.layer_decay,
    )
    if guidance is not None:
        groups += guidance.parameter_group(lr=optimizer.lr, weight_decay=optimizer.weight_decay)
    adamw = torch.optim.AdamW(groups, lr=optimizer.lr, betas=optimizer.betas, fused=True)
    schedule = build_schedule(
        adamw,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        kind=falls.type,
        milestones=falls.milestones,
        gamma=falls.gamma,
        flat_epochs=falls.flat_epochs,
        no_aug_epochs=falls.no_aug_epochs,
        warmup=rises.type if rises else None,
        warmup_steps=rises.warmup_duration if rises else 0,
    )
    ema = None
    if settings.use_ema:
        decay = fitting_decay(settings.ema.decay, total_steps=total_steps)
        if decay < settings.ema.decay:
            told = (settings.ema.decay, decay, total_steps)
            logger.warning("the average's decay of %g is lowered to %g, since the run has %d steps", *told)
        ema = ModelEMA(model, decay=decay, warmups=settings.ema.warmups)
    clip = settings.clip_max_norm
    return TrainingStep(
        model, criterion, adamw, schedule, ema, precision, clip_max_norm=clip, guidance=guidance
    )


def wrapped(callee: nn.Module, *, compiled: bool) -> nn.Module:
    """What an epoch calls: the detector `callee`, its backbone compiled or not, under DDP on several ranks.

    To be made anew each epoch: a parameter that is frozen at wrapping would never be synchronised later.
    Wrapping gives every rank the main one's weights.
    """
    if compiled:
        backbone = callee.backbone
        assert isinstance(backbone, nn.Module), "a detector has one"
        if backbone._compiled_call_impl is None:
            backbone.compile(dynamic=True, fullgraph=True)  # sizes are symbols: one graph for what trains
    if distributed.world_size() > 1:
        return DistributedDataParallel(callee, gradient_as_bucket_view=True)
    return callee
