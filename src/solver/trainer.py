"""The training run: stages, epochs, checkpoints, and what is said of them."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import distributed
from ..core import Experiment
from ..data import TrainLoader, draw_size, sizes_for, to_device_images
from ..data.seeds import seed_of
from ..evaluation import CocoMetrics
from ..nn.sync_norm import synchronise_batch_norm
from ..optim import ModelEMA, Rule, build_schedule, groups_table, parameter_groups
from ..structures import Batch, ClassNames
from .checkpoint import read_checkpoint, save_checkpoint
from .evaluate import Evaluation
from .logs import Progress, make_folder
from .precision import choose_precision
from .recorder import Recorder
from .resume import restore, run_state
from .stages import Stage, plan_stages, release_backbone, stages_table
from .step import Criterion, StepResult, TrainingStep
from .weights import model_state

logger = logging.getLogger(__name__)

MAX_BAD_STEPS = 20


class TrainingParts(NamedTuple):
    """What assembly builds for a run."""

    model: nn.Module
    criterion: Criterion
    loader: TrainLoader
    evaluation: Evaluation
    classes: ClassNames
    config_text: str


class Trainer:
    """Trains a model through its stages, and keeps `last.pth` and `best.pth` in `output_dir`."""

    def __init__(self, settings: Experiment, parts: TrainingParts, device: torch.device) -> None:
        self.settings = settings
        self.parts = parts
        self.device = device
        self.output_dir = Path(settings.output_dir)
        self.model = parts.model.to(device)
        if settings.sync_bn and distributed.world_size() > 1:
            self.model = synchronise_batch_norm(self.model, device)
        self.precision = choose_precision(device, use_amp=settings.use_amp, dtype=settings.amp.dtype)
        backbone = self.model.backbone
        self.stages = plan_stages(
            settings.stages,
            epochs=settings.epochs,
            num_blocks=getattr(backbone, "num_blocks", 0),
            freeze_backbone=getattr(backbone, "freeze_backbone", False),
            freeze_epochs=getattr(backbone, "freeze_backbone_epochs", 0),
        )
        self.stages = tuple(
            stage._replace(
                multi_scale=stage.multi_scale and settings.multi_scale is not None,
                strong_augmentation=stage.strong_augmentation and parts.loader.has_strong_augmentation,
            )
            for stage in self.stages
        )
        repeat = settings.multi_scale.base_size_repeat if settings.multi_scale else 0
        self.sizes = sizes_for(settings.eval_spatial_size, repeat) if repeat else []
        self.steps_per_epoch = len(parts.loader) // settings.accumulate_steps
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(parts.loader)} batches an epoch, under accumulate_steps={settings.accumulate_steps}: "
                "lower accumulate_steps or train_dataloader.total_batch_size"
            )
        self.step = self._build_step()
        self.epoch = 0
        self.best: dict[str, float] = {}
        self.best_checkpoint: Path | None = None
        self.bad_steps = 0

    def _build_step(self) -> TrainingStep:
        s = self.settings
        rules = [Rule(r.params, r.lr, r.weight_decay) for r in s.optimizer.params]
        groups = parameter_groups(
            self.model,
            rules,
            lr=s.optimizer.lr,
            weight_decay=s.optimizer.weight_decay,
            layer_decay=s.optimizer.layer_decay,
        )
        optimizer = torch.optim.AdamW(groups, lr=s.optimizer.lr, betas=s.optimizer.betas, fused=True)
        warmup = s.lr_warmup_scheduler
        schedule = build_schedule(
            optimizer,
            total_steps=s.epochs * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            kind=s.lr_scheduler.type,
            milestones=s.lr_scheduler.milestones,
            gamma=s.lr_scheduler.gamma,
            flat_epochs=s.lr_scheduler.flat_epochs,
            no_aug_epochs=s.lr_scheduler.no_aug_epochs,
            warmup=warmup.type if warmup else None,
            warmup_steps=warmup.warmup_duration if warmup else 0,
        )
        ema = ModelEMA(self.model, decay=s.ema.decay, warmups=s.ema.warmups) if s.use_ema else None
        return TrainingStep(
            self.model,
            self.parts.criterion,
            optimizer,
            schedule,
            ema,
            self.precision,
            clip_max_norm=s.clip_max_norm,
        )

    @property
    def global_step(self) -> int:
        """Optimizer steps attempted so far in the whole run."""
        return int(self.step.schedule.last_epoch)

    def fit(self) -> CocoMetrics | None:
        """Train from the current epoch to the last; the last evaluation's numbers, if one was made."""
        if distributed.is_main():
            make_folder(self.output_dir)
            (self.output_dir / "config.yml").write_text(self.parts.config_text)
        logger.info("parameter groups\n%s", groups_table(self.step.optimizer.param_groups))
        logger.info("training plan, %d steps an epoch\n%s", self.steps_per_epoch, stages_table(self.stages))
        metrics: CocoMetrics | None = None
        with Recorder(self.output_dir, self.settings.summary_dir, resume_step=self.global_step) as recorder:
            for epoch in range(self.epoch, self.settings.epochs):
                stage = next(s for s in self.stages if s.start <= epoch < s.end)
                model = self._enter(stage, epoch)
                self._train_epoch(epoch, stage, model, recorder)
                self.epoch = epoch + 1
                metrics = self._evaluate_and_save(epoch, recorder)
        return metrics

    def _enter(self, stage: Stage, epoch: int) -> nn.Module:
        """Put the stage's rules in force; the model to call, wrapped for what trains now."""
        decay = stage.ema_restart_decay if epoch == stage.start and self.step.ema is not None else None
        if decay is not None and self.best_checkpoint is not None and distributed.is_main():
            self.model.load_state_dict(model_state(read_checkpoint(self.best_checkpoint))[0])
        release_backbone(self.model, stage, self.step.optimizer, self.step.schedule)
        self.parts.loader.set_epoch(epoch, strong_augmentation=stage.strong_augmentation)
        self.model.train()
        # wrapped anew each epoch: a parameter frozen at wrapping would never be synchronised later.
        # Wrapping gives every rank the main one's weights.
        alone = distributed.world_size() == 1
        model = self.model if alone else DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        if decay is not None and self.step.ema is not None:
            self.step.ema.restart(decay, from_model=self.model)
            source = self.best_checkpoint or "the current weights: there is no best checkpoint yet"
            logger.info("the average starts anew with decay %g, from %s", decay, source)
        return model

    def _train_epoch(self, epoch: int, stage: Stage, model: nn.Module, recorder: Recorder) -> None:
        window: list[Tensor] = []
        with Progress(total=self.steps_per_epoch, epoch=epoch, epochs=self.settings.epochs) as progress:
            for i, batches in enumerate(self._accumulated()):
                size = self._draw_size(stage)
                # a function of (seed, step, rank): a resumed run draws the same
                torch.manual_seed(seed_of(self.settings.seed or 0, self.global_step, distributed.rank()))
                result = self.step(model, self.model, [self._to_device(batch, size) for batch in batches])
                self._check(result, batches)
                window.append(result.losses)
                progress.advance(images=sum(b.images.shape[0] for b in batches) * distributed.world_size())
                if (i + 1) % self.settings.print_freq == 0 or i == self.steps_per_epoch - 1:
                    values = distributed.mean_over_ranks(torch.stack(window).mean(0)).tolist()
                    window.clear()
                    rates = [float(rate) for rate in self.step.schedule.get_last_lr()]
                    losses = dict(zip(result.names, values, strict=True))
                    recorder.training(epoch, self.global_step, losses, rates)
                    progress.describe(loss=sum(values), lr=max(rates))

    def _accumulated(self) -> Iterator[list[Batch]]:
        batches = iter(self.parts.loader)
        for _ in range(self.steps_per_epoch):
            yield list(islice(batches, self.settings.accumulate_steps))

    def _draw_size(self, stage: Stage) -> tuple[int, int] | None:
        if not stage.multi_scale:
            return None
        return draw_size(self.sizes, seed=self.settings.seed or 0, step=self.global_step)

    def _to_device(self, batch: Batch, size_hw: tuple[int, int] | None) -> tuple[Tensor, Any]:
        moved = batch.to(self.device)
        return to_device_images(moved.images, size_hw), moved.targets

    def _check(self, result: StepResult, batches: list[Batch]) -> None:
        if result.finite:
            self.bad_steps = 0
            return
        self.bad_steps += 1
        ids = [i for batch in batches for i in batch.targets.image_ids]
        logger.warning(
            "step %d: gradients are not finite, nothing was updated; pictures %s", self.global_step, ids
        )
        if self.bad_steps >= MAX_BAD_STEPS:
            raise ValueError(
                f"{MAX_BAD_STEPS} steps in a row had non-finite gradients, the last step {self.global_step} "
                f"with pictures {ids}. {self.output_dir / 'last.pth'} holds the last good epoch: resume from "
                "it with a lower learning rate (-u optimizer.lr=...) or without --use-amp"
            )

    def _evaluate_and_save(self, epoch: int, recorder: Recorder) -> CocoMetrics | None:
        s = self.settings
        last_epoch = epoch == s.epochs - 1
        metrics: CocoMetrics | None = None
        improved = False
        if last_epoch or (epoch + 1) % s.eval_every == 0:
            self.model.eval()
            evaluated = self.step.ema.module if self.step.ema else self.model
            metrics, pictures = self.parts.evaluation(evaluated, self.precision, num_pictures=4)
            value = metrics.numbers()[s.best_metric]
            improved = value > self.best.get(s.best_metric, float("-inf"))
            if improved:
                self.best = {**metrics.numbers(), "epoch": epoch}
                self.best_checkpoint = self.output_dir / "best.pth"
            recorder.evaluation(epoch, self.global_step, metrics, pictures)
            best = self.best.get(s.best_metric, value)
            told = (epoch, metrics.AP, metrics.AP50, s.best_metric, best)
            logger.info("epoch %d: AP %.4f, AP50 %.4f; best %s %.4f", *told)
        if distributed.is_main():
            self._save(best=improved, last=last_epoch or (epoch + 1) % s.checkpoint_freq == 0)
        distributed.barrier()
        return metrics

    def _save(self, *, best: bool, last: bool) -> None:
        state = run_state(self.model, self.step, self.epoch, self.best)
        state["classes"] = {"names": list(self.parts.classes.names), "ids": list(self.parts.classes.ids)}
        state["config"] = self.parts.config_text
        if best:
            save_checkpoint(self.output_dir / "best.pth", state)
        if last:
            save_checkpoint(self.output_dir / "last.pth", state)

    def resume(self, path: Path) -> None:
        """Go on after the epoch that the checkpoint at `path` ended.

        Raises:
            ValueError: The file holds weights only, or is of another model or other parameter groups.
        """
        self.epoch, self.best = restore(path, self.model, self.step)
        beside = path.parent / "best.pth"
        self.best_checkpoint = beside if self.best and beside.exists() else None
        logger.info("resumed from %s: epoch %d of %d is next", path, self.epoch, self.settings.epochs)
