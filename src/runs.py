"""What a person starts: a training run, or the evaluation of a checkpoint."""

import logging
import secrets
from dataclasses import replace
from pathlib import Path

import torch

from . import distributed
from .assembly import build_criterion, build_evaluation, build_model, build_trainer
from .core import Experiment
from .data import ReadSet, Report, examine_before_training, find_origins, read_origin, sizes_for
from .evaluation import CocoMetrics
from .files import make_folder
from .solver.batch_size import probe
from .solver.checkpoint import Checkpoint, read_checkpoint
from .solver.checkpoint_folder import CheckpointFolder
from .solver.logs import setup_logging
from .solver.precision import choose_precision
from .solver.recorder import record_test
from .solver.resume import newest_checkpoint, stored_batch_plan, stored_seed
from .solver.weights import class_names, load_model

logger = logging.getLogger(__name__)


def train(
    experiment: Experiment, device: torch.device, *, resume: str | None = None, tune: str | None = None
) -> None:
    """Train to the end of the run.

    Args:
        experiment: What to train.
        device: Where.
        resume: Checkpoint to go on from; "auto" takes the newest good one of `output_dir`, or starts anew
            where there is none. Workers that torchrun started again do so by themselves.
        tune: Checkpoint whose weights to start from.
    """
    setup_logging(None)
    restarted = distributed.has_begun()
    files = CheckpointFolder(Path(experiment.output_dir), keep=experiment.checkpoint_keep)
    stored = newest_checkpoint(files) if restarted or resume == "auto" else None
    # a worker that died before the first checkpoint starts as it did
    if stored is None and resume is not None and resume != "auto":
        stored = Checkpoint(Path(resume), read_checkpoint(Path(resume)))
    if restarted and tune is not None:
        tune = str(files.where_now(Path(tune)))
    pictures, report = _read(experiment, "train", "val")
    experiment = _seeded(_sized(experiment, device, stored), stored)
    trainer = build_trainer(experiment, device, pictures, resume=stored, tune=None if stored else tune)
    # only now: a run that cannot start leaves nothing behind
    folder = make_folder(experiment.output_dir)
    distributed.barrier()  # every rank has read what is moved now
    if distributed.is_main():
        if stored is not None or not restarted:  # otherwise the folder is this run's already
            files.claim(stored.path if stored else None, step=trainer.global_step)
        distributed.mark_begun()
    setup_logging(folder)
    if report is not None and report.findings:
        logger.warning("the data has %d findings:\n%s", len(report.findings), report.short())
    del stored  # large
    trainer.fit()


def _read(experiment: Experiment, *splits: str) -> tuple[dict[str, ReadSet], Report | None]:
    """The pictures and objects of a run; and what the main rank finds in them, if they are trained on.

    The others wait for it, and take from the cache what it read of a large JSON.

    Raises:
        ValueError: The data would stop the run.
    """
    loaders = {"train": experiment.train_dataloader, "val": experiment.val_dataloader}
    stated = {split: loaders[split].dataset for split in splits}
    origins, report = find_origins(experiment.data, stated), None
    found: dict[str, ReadSet] = {}
    if not distributed.is_main():
        distributed.barrier()
    elif "train" in splits:
        lenient = [split for split, own in stated.items() if own.drop_empty_boxes]
        report, found = examine_before_training(origins, lenient=lenient)
    found = {s: found.get(s) or read_origin(origins[s], own, s) for s, own in stated.items()}
    if distributed.is_main():
        distributed.barrier()  # the headers of a large set take their time
    return found, report


def _sized(experiment: Experiment, device: torch.device, stored: Checkpoint | None) -> Experiment:
    """The experiment with numbers for `total_batch_size: auto`: measured, or the resumed run's."""
    loader = experiment.train_dataloader
    if loader.total_batch_size != "auto":
        return experiment
    if experiment.accumulate_steps > 1:
        raise ValueError(
            f"accumulate_steps is {experiment.accumulate_steps}, but total_batch_size: auto sets it; "
            "give one of the two"
        )
    if stored is not None:
        plan = stored_batch_plan(stored.content)
    else:
        if experiment.distillation is not None or experiment.gram_anchoring is not None:
            logger.warning(
                "total_batch_size: auto measures the student alone, and a teacher or an anchor needs memory "
                "too: where it does not suffice, give a number"
            )
        sizes = experiment.multi_scale and sizes_for(experiment.eval_spatial_size, 1)
        plan = probe(
            build_model(experiment),
            build_criterion(experiment).to(device),
            choose_precision(device, use_amp=experiment.use_amp, dtype=experiment.amp.dtype),
            device,
            size_hw=max(sizes or [experiment.eval_spatial_size]),
        )
    loader = replace(loader, total_batch_size=plan.total_batch_size)
    return replace(experiment, train_dataloader=loader, accumulate_steps=plan.accumulate_steps)


def _seeded(experiment: Experiment, stored: Checkpoint | None) -> Experiment:
    """The experiment with a seed, the same on every rank: its own, the resumed run's, or a drawn one."""
    seed = experiment.seed
    if seed is None and stored is not None:
        seed = stored_seed(stored.content)
    if seed is None:
        seed = int(distributed.broadcast_int(secrets.randbelow(2**31)))
    distributed.seed_everything(seed)
    return replace(experiment, seed=seed)


def test(experiment: Experiment, device: torch.device, *, checkpoint: str | None) -> CocoMetrics:
    """COCO's numbers of a checkpoint on the evaluation pictures; `output_dir` gets eval.json and the report.

    Args:
        experiment: What it is a checkpoint of.
        device: Where to evaluate.
        checkpoint: A file; "auto" takes the best one of `output_dir`, or the newest good one where there is
            no best.

    Raises:
        ValueError: No checkpoint is named or there is none, or it is not one of this model.
    """
    setup_logging(None)
    path, state = _evaluated(experiment, checkpoint)
    model = build_model(experiment)
    load_model(model, state, path)
    model.to(device).eval()
    precision = choose_precision(device, use_amp=experiment.use_amp, dtype=experiment.amp.dtype)
    names = class_names(state)
    pictures = _read(experiment, "val")[0]["val"]
    if names is not None and not state.get("classes"):  # a published file's, by their number
        own = pictures.annotations.classes
        names = None if len(own.names) == len(names.names) else names  # labels are numbered as upstream does
    evaluation = build_evaluation(experiment, device, model, names, pictures)
    metrics, _ = evaluation(model, precision)
    folder, step = Path(experiment.output_dir), int(state.get("step", 0))
    record_test(folder, evaluation, metrics, path, step=step)
    return metrics


def _evaluated(experiment: Experiment, named: str | None) -> Checkpoint:
    """The checkpoint that `test` is to evaluate, with its errors."""
    if named is None:
        raise ValueError(
            "--test-only evaluates a checkpoint: name it with -r, for instance -r output/NAME/best.pth"
        )
    files = CheckpointFolder(Path(experiment.output_dir), keep=experiment.checkpoint_keep)
    path = files.best if named == "auto" else Path(named)
    if named != "auto" or path.exists():
        return Checkpoint(path, read_checkpoint(path))
    newest = files.newest_good()
    if newest is None:
        raise ValueError(
            f"--test-only -r auto: there is no checkpoint in {files.folder}; name a file with -r, or the "
            "folder of a run with --output-dir"
        )
    return newest
