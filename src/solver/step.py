"""One optimizer step: forward, losses, backward, clip, update, average."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from ..optim import ModelEMA
from ..structures import Targets, TrainOutput
from .guidance import Guidance
from .low_precision import LowPrecisionTwin
from .precision import Precision

MicroBatches = Sequence[tuple[Tensor, Targets]]


class Criterion(Protocol):
    """What a step asks of its losses."""

    def __call__(
        self, output: TrainOutput, targets: Targets, step_counts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses by name; `step_counts` [M, ...] is given where a step has M > 1 micro-batches."""

    def count(self, output: TrainOutput, targets: Targets) -> Tensor:
        """What the normalisers of the losses have to know of one micro-batch: its row of `step_counts`."""


class StepResult(NamedTuple):
    """What one step says of itself.

    Attributes:
        names: Names of the losses.
        losses: [len(names)] their values on this rank, weighted, mean over the micro-batches, on the device.
        finite: Whether losses and gradients were finite, on all ranks; otherwise nothing was updated, and the
            gradients, not yet clipped, stay where they are until the next step.
        notes: What the guidance, where there is one, says of the step: scalars on the device, by name.
    """

    names: tuple[str, ...]
    losses: Tensor
    finite: bool
    notes: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def told(self) -> Tensor:
        """[len(names) + len(notes)] what is averaged for the log: losses, then notes."""
        return torch.cat((self.losses, torch.stack(list(self.notes.values())))) if self.notes else self.losses


class TrainingStep:
    """Owns what changes in a step: optimizer, schedule, scaler and average.

    The gradient norm decides whether a step counts. With several ranks it is that of the averaged gradients,
    the same number everywhere, so all ranks take the same decision without asking one another; a loss that is
    not finite makes all gradients so.

    With a `guidance` the student, which is `model`, is called and wrapped together with its projector.

    Attributes:
        callee: What to call, and to wrap in DistributedDataParallel: the model, or its twin in half precision
            (opt level O2). It is another one after each `enter_epoch`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        schedule: LambdaLR,
        ema: ModelEMA | None,
        precision: Precision,
        *,
        clip_max_norm: float,
        guidance: Guidance | None = None,
    ) -> None:
        self.criterion = criterion
        self.guidance = guidance
        self.optimizer = optimizer
        self.schedule = schedule
        self.ema = ema
        self.precision = precision
        self.scaler = precision.scaler()
        self.clip_max_norm = clip_max_norm
        self._model = model
        self._called = guidance.guided if guidance else model
        self._norms = NormStatistics(model)
        self.enter_epoch()

    def enter_epoch(self) -> None:
        """Look at the model anew: its weights, what of it trains, and which of its parts are in eval mode.

        To be called before `callee` is wrapped, on all ranks, after all this was changed from outside.
        """
        self._twin: LowPrecisionTwin | None = None
        self.callee = self._called
        if self.precision.casts_weights and self.precision.dtype is not None:
            self._twin = LowPrecisionTwin(self._called, self.precision.dtype)
            self.callee = self._twin.module

    def __call__(self, model: nn.Module, micro_batches: MicroBatches) -> StepResult:
        """One update from `micro_batches` of (images [B, 3, H, W] in [0, 1], targets).

        Losses and gradients of several micro-batches of one size are those of one large batch. What the
        losses are divided by is known only after matching, so all micro-batches run forward once more at
        first, without gradient; this takes a forward pass's share of the time. Two things stay each
        micro-batch's own: the batch statistics of BatchNorm, and the number of denoising copies, which
        depends on the largest number of objects that a picture in it has.

        Args:
            model: `callee`, wrapped in DistributedDataParallel where there are several ranks.
            micro_batches: At least one; as many on every rank.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._norms.keep()
        step_counts = self._count(micro_batches) if len(micro_batches) > 1 else None
        names: tuple[str, ...] = ()
        total: Tensor | float = 0.0
        for i, (images, targets) in enumerate(micro_batches):
            # a twin's gradients move on after each micro-batch, so they have to be averaged each time
            waits = i < len(micro_batches) - 1 and self._twin is None
            with model.no_sync() if isinstance(model, DistributedDataParallel) and waits else nullcontext():
                losses = self._losses(model, images, targets, step_counts)
                stacked = torch.stack(list(losses.values())) / len(micro_batches)
                self._backward(stacked.sum())
            names, total = tuple(losses), total + stacked.detach()
        assert isinstance(total, Tensor), "a step has at least one micro-batch"
        finite = self._update()
        return StepResult(names, total, finite, self.guidance.notes() if self.guidance else {})

    def _losses(
        self, model: nn.Module, images: Tensor, targets: Targets, step_counts: Tensor | None
    ) -> dict[str, Tensor]:
        counts = () if step_counts is None else (step_counts,)
        with self.precision.autocast():
            output = model(images, targets)
            aims = self.guidance.aims(output, targets) if self.guidance else None
        if self.guidance is None or aims is None:
            return self.criterion(output, targets, *counts)
        return {
            **self.criterion(output.detected, targets, *counts),
            **self.guidance.losses(output, aims),
        }

    @torch.no_grad()
    def _count(self, micro_batches: MicroBatches) -> Tensor:
        """The criterion's counts [M, ...]; draws what the step will draw, and leaves no trace of it."""
        device = micro_batches[0][0].device
        counts = []
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for images, targets in micro_batches:
                with self.precision.autocast():
                    output: Any = self.callee(images, targets)
                if self.guidance is not None:
                    output = output.detected
                counts.append(self.criterion.count(output, targets))
        self._norms.restore()
        return torch.stack(counts)

    def _backward(self, loss: Tensor) -> None:
        # an infinite loss may have finite gradients: the factor, 1 or NaN, lets them say so on every rank
        factor = loss.detach() * 0 + 1
        self.scaler.scale(loss).backward(factor)  # type: ignore[no-untyped-call, unused-ignore]
        if self._twin is not None:
            self._twin.hand_over_gradients()

    def _update(self) -> bool:
        self.scaler.unscale_(self.optimizer)
        parameters = [
            p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        finite = bool(torch.isfinite(norm))
        if self.guidance is not None:
            self.guidance.observe(parameters, finite=finite)
        if finite:
            if self.clip_max_norm:
                nn.utils.clip_grads_with_norm_(parameters, self.clip_max_norm, norm)
            self.scaler.step(self.optimizer)
            if self._twin is not None:
                self._twin.refresh()
            if self.ema is not None:
                self.ema.update(self._model)
        else:
            self._norms.restore()
        self.scaler.update()  # lowers its scale where it met infinities
        # the schedule counts attempted steps, so that it ends with the run
        self.schedule.step()
        return finite


class NormStatistics:
    """The running statistics of a model's norms before a step, to go back to when the step does not count."""

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        live = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        # statistics and counters apart: a copy of many tensors is one operation where all are of one type
        kinds = [[b for b in live if b.is_floating_point()], [b for b in live if not b.is_floating_point()]]
        self._pairs = [(kind, [buffer.clone() for buffer in kind]) for kind in kinds if kind]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the statistics as they are."""
        for live, kept in self._pairs:
            torch._foreach_copy_(kept, live)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered."""
        for live, kept in self._pairs:
            torch._foreach_copy_(live, kept)
