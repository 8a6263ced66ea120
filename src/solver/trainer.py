"""The training run: stages, epochs, checkpoints, and what is said of them."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import distributed
from ..core import Experiment
from ..data import TrainLoader, draw_size, sizes_for, to_device_images
from ..data.seeds import seed_of
from ..door import Interrupted
from ..evaluation import CocoMetrics
from ..files import make_folder, write_whole
from ..nn.sync_norm import synchronise_batch_norm
from ..optim import fitting_decay, groups_table
from ..structures import Batch, ClassNames
from .bad_step import bad_step, why_stopped, write_bad_step
from .checkpoint import Checkpoint
from .checkpoint_folder import CheckpointFolder
from .evaluate import Evaluation
from .guidance import Guidance
from .interrupt import StopRequest
from .logs import Progress, writing_in
from .optimization import build_step, steps_of_epoch, wrapped
from .precision import choose_precision
from .recorder import Recorder
from .resume import RunState, restore, stored_state
from .stages import Stage, backbone_groups, plan_of, release_backbone, stages_table
from .step import Criterion, StepResult
from .summary import closing_words

logger = logging.getLogger(__name__)


class TrainingParts(NamedTuple):
    """What assembly builds for a run."""

    model: nn.Module
    criterion: Criterion
    loader: TrainLoader
    evaluation: Evaluation
    classes: ClassNames
    config_text: str
    guidance: Guidance | None = None


class Trainer:
    """Trains a model through its stages, and keeps its newest and its best checkpoint in `output_dir`.

    A run that is stopped and resumed gives the weights, and the log, of one that was not: what a step draws
    is a function of (seed, step, rank), and the checkpoint holds the rest.
    """

    def __init__(self, settings: Experiment, parts: TrainingParts, device: torch.device) -> None:
        self.settings = settings
        self.parts = parts
        self.device = device
        self.output_dir = Path(settings.output_dir)
        self.model = parts.model.to(device)
        if settings.sync_bn and distributed.world_size() > 1:
            self.model = synchronise_batch_norm(self.model, device)
        self.precision = choose_precision(
            device, use_amp=settings.use_amp, dtype=settings.amp.dtype, opt_level=settings.amp.opt_level
        )
        self.stages = tuple(
            stage._replace(
                multi_scale=stage.multi_scale and settings.multi_scale is not None,
                strong_augmentation=stage.strong_augmentation and parts.loader.has_strong_augmentation,
            )
            for stage in plan_of(settings, self.model)
        )
        repeat = settings.multi_scale.base_size_repeat if settings.multi_scale else 0
        self.sizes = sizes_for(settings.eval_spatial_size, repeat) if repeat else []
        self.steps_per_epoch = steps = steps_of_epoch(len(parts.loader), settings.accumulate_steps)
        guide = parts.guidance
        if guide is not None:
            guide.check_plan(self.stages, parts.loader.dataset)
        self.step = build_step(
            settings, self.model, parts.criterion, self.precision, steps_per_epoch=steps, guidance=guide
        )
        backbone_groups(self.model, self.stages, self.step.optimizer)
        self.files = CheckpointFolder(self.output_dir, keep=settings.checkpoint_keep)
        self.run = RunState()

    @property
    def global_step(self) -> int:
        """Optimizer steps attempted so far in the whole run."""
        return int(self.step.schedule.last_epoch)

    def fit(self) -> CocoMetrics | None:
        """Train from where the run stands to its end; the last evaluation's numbers, if one was made.

        Raises:
            Interrupted: SIGTERM or SIGINT asked to stop; a checkpoint of this moment is written.
        """
        if distributed.is_main():
            with writing_in(make_folder(self.output_dir)):
                write_whole(self.output_dir / "config.yml", self.parts.config_text.encode())
        logger.info("parameter groups\n%s", groups_table(self.step.optimizer.param_groups))
        logger.info("training plan, %d steps an epoch\n%s", self.steps_per_epoch, stages_table(self.stages))
        metrics: CocoMetrics | None = None
        with (
            StopRequest() as stop,
            Recorder(self.output_dir, self.settings.summary_dir, resume_step=self.global_step) as recorder,
        ):
            while self.run.epoch < self.settings.epochs and not self._out_of_patience():
                stage = next(s for s in self.stages if s.start <= self.run.epoch < s.end)
                self._train_epoch(stage, self._enter(stage), recorder, stop)
                metrics = self._evaluate_and_save(recorder, stop) or metrics
        if self._out_of_patience():
            logger.info("no new best in %d evaluations: the run ends here", self.run.stale_evaluations)
        logger.info("%s", closing_words(self.output_dir, self.settings.best_metric, self.run.best))
        return metrics

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.run.stale_evaluations >= patience

    def _enter(self, stage: Stage) -> nn.Module:
        """Put the stage's rules in force; the model to call, wrapped for what trains now."""
        epoch, ema = self.run.epoch, self.step.ema
        begins = epoch == stage.start and self.run.step_in_epoch == 0
        decay = stage.ema_restart_decay if begins and ema is not None else None
        best = self.run.best_weights if decay is not None else None
        if best is not None:
            self.model.load_state_dict(best)
        if not self._restarts_after(epoch):
            self.run.best_weights = None
        release_backbone(self.model, stage, self.step.optimizer, self.step.schedule)
        self.parts.loader.set_epoch(
            epoch,
            strong_augmentation=stage.strong_augmentation,
            chances=stage.chances,
            start_batch=self.run.step_in_epoch * self.settings.accumulate_steps,
        )
        self.model.train()
        self.step.enter_epoch()
        model = wrapped(self.step.callee, compiled=self.settings.compile)
        if decay is not None and ema is not None:
            decay = fitting_decay(decay, total_steps=self.settings.epochs * self.steps_per_epoch)
            ema.restart(decay, from_model=self.model)
            source = "the best weights" if best else "the current weights: there was no evaluation yet"
            logger.info("the average starts anew with decay %g, from %s", decay, source)
            if self.parts.guidance is not None:
                self.parts.guidance.restart()
        return model

    def _restarts_after(self, epoch: int) -> bool:
        return any(stage.start > epoch and stage.ema_restart_decay is not None for stage in self.stages)

    def _train_epoch(self, stage: Stage, model: nn.Module, recorder: Recorder, stop: StopRequest) -> None:
        s, run = self.settings, self.run
        bar = Progress(total=self.steps_per_epoch, epoch=run.epoch, epochs=s.epochs, done=run.step_in_epoch)
        with bar as progress:
            for batches in self._accumulated():
                size = self._draw_size(stage)
                # a function of (seed, step, rank): a resumed run draws the same
                seed = seed_of(s.seed or 0, self.global_step, distributed.rank())
                distributed.seed_everything(seed)
                result = self.step(model, [self._to_device(batch, size) for batch in batches])
                run.bad_steps = 0 if result.finite else run.bad_steps + 1
                if run.bad_steps:
                    self._tell_bad_step(result, batches, size, seed)
                run.step_in_epoch += 1
                if result.finite:  # on all ranks, or on none: their windows stay equally long
                    run.window.append(result.told)
                progress.advance(images=sum(b.images.shape[0] for b in batches) * distributed.world_size())
                if run.step_in_epoch % s.print_freq == 0 or run.step_in_epoch == self.steps_per_epoch:
                    self._tell(result, recorder, progress)
                self._save_or_stop(stop)
        if self.parts.guidance is not None:
            self.parts.guidance.end_epoch()

    def _tell(self, result: StepResult, recorder: Recorder, progress: Progress) -> None:
        if not self.run.window:  # all steps since the last line were skipped
            return
        values = distributed.mean_over_ranks(torch.stack(self.run.window).mean(0)).tolist()
        self.run.window.clear()
        rates = [float(rate) for rate in self.step.schedule.get_last_lr()]
        losses = dict(zip(result.names, values, strict=False))
        notes = dict(zip(result.notes, values[len(losses) :], strict=True))
        recorder.training(self.run.epoch, self.global_step, losses, rates, notes)
        progress.describe(loss=sum(losses.values()), lr=max(rates))

    def _save_or_stop(self, stop: StopRequest) -> None:
        """After a step: a checkpoint where one is due, and the end of the run where a signal asked for it."""
        signal = stop.agreed()
        every = self.settings.checkpoint_step_freq
        # the epoch's last step is followed by its evaluation, and that by a checkpoint
        due = every > 0 and self.global_step % every == 0 and self.run.step_in_epoch < self.steps_per_epoch
        if signal is not None:
            self._save_and_wait()
            raise Interrupted(signal)
        if due:
            self._save(last=True)

    def _save_and_wait(self) -> None:
        """A last checkpoint. No rank leaves before it is written: the launcher would end the others."""
        self._save(last=True)
        distributed.barrier()
        logger.warning("step %d is kept in %s; -r auto goes on from it", self.global_step, self.files.last)

    def _accumulated(self) -> Iterator[list[Batch]]:
        batches = iter(self.parts.loader)
        for _ in range(self.run.step_in_epoch, self.steps_per_epoch):
            yield list(islice(batches, self.settings.accumulate_steps))

    def _draw_size(self, stage: Stage) -> tuple[int, int] | None:
        seed = self.settings.seed or 0
        return draw_size(self.sizes, seed=seed, step=self.global_step) if stage.multi_scale else None

    def _to_device(self, batch: Batch, size_hw: tuple[int, int] | None) -> tuple[Tensor, Any]:
        moved = batch.to(self.device)
        return to_device_images(moved.images, size_hw), moved.targets

    def _tell_bad_step(
        self, result: StepResult, batches: list[Batch], size_hw: tuple[int, int] | None, seed: int
    ) -> None:
        """Say which step was skipped; after too many in a row keep it in a file of this rank, and stop."""
        run, limit = self.run, self.settings.max_bad_steps
        ids = [i for batch in batches for i in batch.targets.image_ids]
        logger.warning(
            "step %d is skipped, number %d in a row: losses or gradients are not finite; pictures %s",
            *(self.global_step, run.bad_steps, ids),
        )
        if run.bad_steps < limit:
            return
        config, epoch = self.parts.config_text, run.epoch
        bad = bad_step(
            self.model, self.step, result, batches, size_hw=size_hw, epoch=epoch, seed=seed, config=config
        )
        dump = self.output_dir / f"bad_step_{distributed.rank()}.pth"
        write_bad_step(dump, bad)
        raise ValueError(why_stopped(bad, limit, dump=dump, newest=self.files.last))

    def _evaluate_and_save(self, recorder: Recorder, stop: StopRequest) -> CocoMetrics | None:
        s, run = self.settings, self.run
        last_epoch = run.epoch == s.epochs - 1
        metrics: CocoMetrics | None = None
        improved = False
        if last_epoch or (run.epoch + 1) % s.eval_every == 0:
            metrics, improved = self._evaluate(recorder, stop)
        run.epoch, run.step_in_epoch = run.epoch + 1, 0
        ends = last_epoch or self._out_of_patience()
        self._save(best=improved, last=ends or run.epoch % s.checkpoint_freq == 0)
        return metrics

    def _evaluate(self, recorder: Recorder, stop: StopRequest) -> tuple[CocoMetrics, bool]:
        """This epoch's numbers, and whether they are the best so far."""
        s, run = self.settings, self.run
        self.model.eval()
        evaluated = self.step.ema.module if self.step.ema else self.model
        try:
            metrics, pictures = self.parts.evaluation(evaluated, self.precision, num_pictures=4, stop=stop)
        except Interrupted:
            self._save_and_wait()
            raise
        value = metrics.numbers()[s.best_metric]
        improved = value > run.best.get(s.best_metric, float("-inf"))
        run.stale_evaluations = 0 if improved else run.stale_evaluations + 1
        if improved:
            run.best = {**metrics.numbers(), "epoch": run.epoch}
            if self._restarts_after(run.epoch):
                run.best_weights = {name: t.cpu().clone() for name, t in evaluated.state_dict().items()}
        recorder.evaluation(run.epoch, self.global_step, metrics, pictures)
        if improved:
            recorder.best(run.epoch, self.parts.evaluation)
        told = (run.epoch, metrics.AP, metrics.AP50, s.best_metric, run.best.get(s.best_metric, value))
        logger.info("epoch %d: AP %.4f, AP50 %.4f; best %s %.4f", *told)
        return metrics, improved

    def _save(self, *, best: bool = False, last: bool = False) -> None:
        """Write checkpoints; all ranks call it, since those with a log window open give their part of it."""
        if not (best or last):
            return
        state = stored_state(self.model, self.step, self.run, self.steps_per_epoch)
        state["classes"] = {"names": list(self.parts.classes.names), "ids": list(self.parts.classes.ids)}
        state["config"] = self.parts.config_text
        if best and distributed.is_main():
            self.files.save_best(state)
        if last and distributed.is_main():
            self.files.save_last(state)

    def resume(self, stored: Checkpoint) -> None:
        """Go on from the checkpoint, wherever in an epoch it was written.

        Raises:
            ValueError: The file holds weights only, or does not fit this experiment.
        """
        self.run = restore(stored, self.model, self.step, self.steps_per_epoch)
        run = self.run
        where = (stored.path, run.epoch, self.settings.epochs, run.step_in_epoch, self.steps_per_epoch)
        logger.info("resumed from %s: epoch %d of %d is next, %d of its %d steps are done", *where)
