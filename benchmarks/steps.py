"""A training step on the CPU: ours as a run makes it, and a peer's as a script has it."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from src import assembly
from src.optim import ModelEMA, build_schedule
from src.solver.precision import Precision
from src.solver.step import Criterion, TrainingStep

from .losses import as_labels, make_targets
from .pairs import Call

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dfine"
DECAY = 0.9999


class LoopEMA:
    """The average as it is usually written: one tensor after the other, by the state dict."""

    def __init__(self, model: nn.Module) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`."""
        source = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.dtype.is_floating_point:
                average.mul_(DECAY).add_(source[name].detach(), alpha=1 - DECAY)


def step_calls(config: str, name: str, peer: Callable[[nn.Module], nn.Module]) -> dict[str, Call]:
    """A step of ours, and one of a peer as a script has it."""
    experiment = assembly.load(CONFIGS / f"{config}.yml", [])
    ours = assembly.build_model(experiment).train()
    theirs = peer(ours).train()
    images, targets = torch.rand(4, 3, 320, 320), make_targets(4, 7, 320)
    labels = as_labels(targets)
    step = make_step(ours, assembly.build_criterion(experiment))
    optimizer, average = torch.optim.AdamW(theirs.parameters(), lr=1e-6), LoopEMA(theirs)

    def their_step() -> None:
        optimizer.zero_grad()
        theirs(pixel_values=images, labels=labels).loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        optimizer.step()
        average.update(theirs)

    return {f"step, {config}": lambda: step(ours, [(images, targets)]), f"step, {name}": their_step}


def make_step(model: nn.Module, criterion: Criterion) -> TrainingStep:
    """A step as a run makes it, in float32, at a rate that hardly moves the weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = build_schedule(optimizer, total_steps=10**6, steps_per_epoch=10**3)
    ema = ModelEMA(model, decay=DECAY, warmups=0)
    return TrainingStep(model, criterion, optimizer, schedule, ema, Precision("cpu", None), clip_max_norm=0.1)
