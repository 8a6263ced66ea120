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
from .logs import Progress
from .precision import choose_precision
from .recorder import Recorder
from .stages import Stage, Trainable, plan_stages, stages_table
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
            freeze_backbone=getattr(backbone, "freeze_backbone", False),
            freeze_epochs=getattr(backbone, "freeze_backbone_epochs", 0),
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
        self.bad_steps = 0

    def _build_step(self) -> TrainingStep:
        s = self.settings
        rules = [Rule(r.params, r.lr, r.weight_decay) for r in s.optimizer.params]
        groups = parameter_groups(self.model, rules, lr=s.optimizer.lr, weight_decay=s.optimizer.weight_decay)
        logger.info("parameter groups\n%s", groups_table(groups))
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
            self.parts.criterion, optimizer, schedule, ema, self.precision, clip_max_norm=s.clip_max_norm
        )

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is scored and published: the average where there is one."""
        return self.step.ema.module if self.step.ema else self.model

    @property
    def global_step(self) -> int:
        """Optimizer steps attempted so far in the whole run."""
        return int(self.step.schedule.last_epoch)

    def fit(self) -> CocoMetrics | None:
        """Train from the current epoch to the last; the last evaluation's numbers, if one was made."""
        if distributed.is_main():
            self.output_dir.mkdir(parents=True, exist_ok=True)
            (self.output_dir / "config.yml").write_text(self.parts.config_text)
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
        restart = stage.ema_restart_decay
        if epoch == stage.start and restart is not None and self.step.ema is not None:
            best = self.output_dir / "best.pth"
            if best.exists() and self.best:
                self.model.load_state_dict(model_state(read_checkpoint(best))[0])
            self.step.ema.restart(restart, from_model=self.model)
            logger.info("epoch %d: the average starts anew with decay %g", epoch, restart)
        self._release_backbone(stage)
        self.parts.loader.set_epoch(epoch, strong_augmentation=stage.strong_augmentation)
        self.model.train()
        if distributed.world_size() == 1:
            return self.model
        # wrapped anew each epoch: a parameter frozen at wrapping would never be synchronised later
        return DistributedDataParallel(
            self.model, gradient_as_bucket_view=True, broadcast_buffers=not self.settings.sync_bn
        )

    def _release_backbone(self, stage: Stage) -> None:
        backbone: Any = self.model.backbone
        if hasattr(backbone, "set_trainable_blocks"):
            named: dict[Trainable, int | None] = {"frozen": 0, "all": None}
            backbone.set_trainable_blocks(
                named[stage.backbone] if stage.backbone in named else stage.backbone
            )
        elif stage.backbone != "all":
            raise ValueError(
                f"stages: backbone: {stage.backbone} at epoch {stage.start}, but {type(backbone).__name__} "
                "cannot be released in stages; write `backbone: all`"
            )
        in_backbone = {id(p) for p in backbone.parameters()}
        for i, group in enumerate(self.step.optimizer.param_groups):
            only_backbone = all(id(p) in in_backbone for p in group["params"])
            factor = stage.backbone_lr_factor if only_backbone else 1.0
            self.step.schedule.base_lrs[i] = group["initial_lr"] * factor

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
        if not (stage.multi_scale and self.sizes):
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
            metrics = self.evaluate()
            value = metrics.numbers()[s.best_metric]
            improved = value > self.best.get(s.best_metric, float("-inf"))
            if improved:
                self.best = {**metrics.numbers(), "epoch": epoch}
            samples = self.parts.evaluation.samples(
                self.evaluated_model, self.precision, count=4, threshold=0.4
            )
            recorder.evaluation(epoch, self.global_step, metrics, samples)
            logger.info(
                "epoch %d: AP %.4f, AP50 %.4f; best %s %.4f",
                epoch,
                metrics.AP,
                metrics.AP50,
                s.best_metric,
                self.best.get(s.best_metric, value),
            )
        if distributed.is_main():
            state = self.state()
            if improved:
                save_checkpoint(self.output_dir / "best.pth", state)
            if last_epoch or (epoch + 1) % s.checkpoint_freq == 0:
                save_checkpoint(self.output_dir / "last.pth", state)
        distributed.barrier()
        return metrics

    def evaluate(self) -> CocoMetrics:
        """COCO's numbers of the model as it is now."""
        self.model.eval()
        return self.parts.evaluation(self.evaluated_model.eval(), self.precision)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as a checkpoint holds it."""
        return {
            "model": self.model.state_dict(),
            "ema": self.step.ema.state_dict() if self.step.ema else None,
            "optimizer": self.step.optimizer.state_dict(),
            "lr_scheduler": self.step.schedule.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "epoch": self.epoch - 1,
            "step": self.global_step,
            "classes": {"names": list(self.parts.classes.names), "ids": list(self.parts.classes.ids)},
            "config": self.parts.config_text,
            "best": self.best,
        }

    def resume(self, path: Path) -> None:
        """Go on after the epoch that the checkpoint at `path` ended.

        Raises:
            ValueError: The file holds weights only, or is of another model or other parameter groups.
        """
        checkpoint = read_checkpoint(path)
        missing = sorted({"model", "optimizer", "lr_scheduler", "scaler", "epoch"} - checkpoint.keys())
        if missing:
            raise ValueError(
                f"{path} holds no {', '.join(missing)}: training cannot go on from it; "
                "start from its weights with -t instead of -r"
            )
        now, then = (
            [g["param_names"] for g in groups]
            for groups in (self.step.optimizer.param_groups, checkpoint["optimizer"]["param_groups"])
        )
        try:
            if now != then:  # torch compares their sizes alone
                raise ValueError("its parameter groups are others")
            self.model.load_state_dict(checkpoint["model"])
            if self.step.ema is not None and checkpoint["ema"] is not None:
                self.step.ema.load_state_dict(checkpoint["ema"])
            self.step.optimizer.load_state_dict(checkpoint["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} does not fit this experiment: {str(error).splitlines()[0]}. Resume with the "
                "configuration it was trained with (config.yml beside it), or use -t for its weights alone"
            ) from error
        self.step.schedule.load_state_dict(checkpoint["lr_scheduler"])
        self.step.scaler.load_state_dict(checkpoint["scaler"])
        self.best = checkpoint["best"]
        self.epoch = checkpoint["epoch"] + 1
        logger.info("resumed from %s: epoch %d of %d is next", path, self.epoch, self.settings.epochs)
