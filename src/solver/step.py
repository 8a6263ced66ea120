"""One optimizer step: forward, losses, backward, clip, update, average."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from ..optim import ModelEMA
from ..structures import Targets, TrainOutput
from .precision import Precision

Criterion = Callable[[TrainOutput, Targets], dict[str, Tensor]]


class StepResult(NamedTuple):
    """What one step says of itself.

    Attributes:
        names: Names of the losses.
        losses: [len(names)] their values, weighted, mean over the micro-batches, on the device.
        finite: Whether the gradients were finite; otherwise nothing was updated.
    """

    names: tuple[str, ...]
    losses: Tensor
    finite: bool


class TrainingStep:
    """Owns what changes in a step: optimizer, schedule, scaler and average.

    The gradient norm decides whether a step counts. With several ranks it is that of the averaged gradients,
    the same number everywhere, so all ranks take the same decision without asking one another.
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
    ) -> None:
        self.criterion = criterion
        self.optimizer = optimizer
        self.schedule = schedule
        self.ema = ema
        self.precision = precision
        self.scaler = precision.scaler()
        self.clip_max_norm = clip_max_norm
        self._norms = NormStatistics(model)

    def __call__(
        self, model: nn.Module, bare_model: nn.Module, micro_batches: Sequence[tuple[Tensor, Targets]]
    ) -> StepResult:
        """One update from `micro_batches` of (images [B, 3, H, W] in [0, 1], targets).

        Args:
            model: What is called; wrapped in DistributedDataParallel where there are several ranks.
            bare_model: The same model without the wrapper, for the average.
            micro_batches: Their gradients are averaged before the one update. Losses are normalised, and
                batch statistics taken, in each on its own, so they are not quite one large batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._norms.keep()
        names: tuple[str, ...] = ()
        total: Tensor | float = 0.0
        for i, (images, targets) in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with (
                model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
            ):
                with self.precision.autocast():
                    output = model(images, targets)
                losses = self.criterion(output, targets)
                stacked = torch.stack(list(losses.values())) / len(micro_batches)
                self.scaler.scale(stacked.sum()).backward()  # type: ignore[no-untyped-call, unused-ignore]
            names, total = tuple(losses), total + stacked.detach()
        assert isinstance(total, Tensor), "a step has at least one micro-batch"
        return StepResult(names, total, self._update(bare_model))

    def _update(self, bare_model: nn.Module) -> bool:
        self.scaler.unscale_(self.optimizer)
        parameters = [
            p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_max_norm or float("inf"))
        finite = bool(torch.isfinite(norm))
        if finite or self.scaler.is_enabled():  # the scaler skips the update itself, and lowers its scale
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if not finite:
            self._norms.restore()
        elif self.ema is not None:
            self.ema.update(bare_model)
        # the schedule counts attempted steps, so that it ends with the run
        self.schedule.step()
        return finite


class NormStatistics:
    """The running statistics of a model's norms before a step, to go back to when the step does not count."""

    def __init__(self, model: nn.Module) -> None:
        self._live = [
            buffer
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        self._kept = [buffer.clone() for buffer in self._live]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the statistics as they are."""
        if self._live:
            torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered."""
        if self._live:
            torch._foreach_copy_(self._live, self._kept)
