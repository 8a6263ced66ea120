"""From the names in the YAML to the objects: the only file that knows both."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from . import distributed
from .core import Experiment, LoaderSettings, dump_experiment, load_experiment
from .data import (
    TRANSFORMS,
    CocoDetection,
    Mixing,
    Normalize,
    ReadSet,
    TrainLoader,
    build_eval_loader,
    build_pipeline,
    build_train_loader,
    count_classes,
    read_set,
)
from .evaluation import CocoEvaluator
from .nn.backbone import DinoAdapter, DINOv3Backbone, HGNetv2, load_pretrained
from .nn.criterion import DFINECriterion, HungarianMatcher
from .nn.decoder import DFINETransformer
from .nn.dfine import DFINE
from .nn.encoder import HybridEncoder
from .nn.postprocessor import DFINEPostProcessor
from .solver.checkpoint import Checkpoint, read_checkpoint
from .solver.evaluate import Evaluation
from .solver.guides import build_guidance
from .solver.trainer import Trainer, TrainingParts
from .solver.weights import class_names, covers, load_model, tune_model
from .structures import ClassNames

logger = logging.getLogger(__name__)

COMPONENTS: dict[str, Callable[..., Any]] = {
    "DFINE": DFINE,
    "DINOv3Backbone": DINOv3Backbone,
    "DinoAdapter": DinoAdapter,
    "HGNetv2": HGNetv2,
    "HybridEncoder": HybridEncoder,
    "DFINETransformer": DFINETransformer,
    "DFINECriterion": DFINECriterion,
    "HungarianMatcher": HungarianMatcher,
    "DFINEPostProcessor": DFINEPostProcessor,
}


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that a YAML file and `-u` overrides describe.

    Raises:
        ConfigError: Anything in it is unknown, of the wrong type, missing or unused; all faults at once.
    """
    return load_experiment(
        path, overrides, components=COMPONENTS, transforms=TRANSFORMS, count_classes=count_classes
    )


def dump(experiment: Experiment) -> str:
    """The resolved experiment as one plain YAML, which loads again to the same."""
    return dump_experiment(experiment)


def build_model(experiment: Experiment) -> DFINE:
    """The model with random weights; nothing is read or fetched."""
    wiring, knobs = experiment.wiring[experiment.model], experiment.components
    backbone = COMPONENTS[wiring["backbone"]](**knobs[wiring["backbone"]])
    encoder = COMPONENTS[wiring["encoder"]](backbone.levels, **knobs[wiring["encoder"]])
    decoder = COMPONENTS[wiring["decoder"]](
        encoder.levels, experiment.num_classes, **knobs[wiring["decoder"]]
    )
    return DFINE(backbone, encoder, decoder)


def build_criterion(experiment: Experiment) -> DFINECriterion:
    """The losses, with their matcher."""
    matcher_name = experiment.wiring[experiment.criterion]["matcher"]
    matcher = COMPONENTS[matcher_name](**experiment.components[matcher_name])
    return DFINECriterion(matcher, experiment.num_classes, **experiment.components[experiment.criterion])


def build_postprocessor(experiment: Experiment) -> DFINEPostProcessor:
    """What turns outputs into detections in pixels."""
    return DFINEPostProcessor(experiment.num_classes, **experiment.components[experiment.postprocessor])


def build_dataset(
    experiment: Experiment,
    settings: LoaderSettings,
    model: nn.Module,
    pictures: ReadSet,
    classes: ClassNames | None = None,
    mixing: Mixing | None = None,
) -> CocoDetection:
    """These pictures, transformed as `settings` say; labels follow `classes`, or the annotation file's own.

    Raises:
        ValueError: The annotation file is faulty, holds another number of classes than `num_classes`, or the
            transforms state a normalisation that is not the model's.
    """
    stated = settings.dataset
    ops = [(op.type, op.knobs) for op in stated.transforms.ops]
    strong = stated.transforms.policy.ops if stated.transforms.policy else ()
    pipeline = build_pipeline(
        ops, strong_ops=strong, size_hw=experiment.eval_spatial_size, keep_ratio=experiment.keep_ratio
    )
    _check_normalisation(pipeline.normalize, model)
    dataset = CocoDetection(
        pictures.img_folder,
        pictures.ann_file,
        pipeline,
        experiment.seed or 0,
        classes,
        mixing,
        annotations=pictures.annotations,
    )
    found = len(dataset.classes.names)
    if found != experiment.num_classes:
        raise ValueError(
            f"{pictures.ann_file} has {found} categories, but num_classes is {experiment.num_classes}; "
            f"add `-u num_classes={found}` or write it into the file"
        )
    return dataset


def _check_normalisation(stated: Normalize | None, model: nn.Module) -> None:
    """The model normalises on the device; a Normalize in the list states how, and must say the same."""
    backbone: Any = model.backbone
    if stated is not None and (stated.mean, stated.std) != (backbone.image_mean, backbone.image_std):
        raise ValueError(
            f"transforms: Normalize states mean {stated.mean} and std {stated.std}, but "
            f"{type(backbone).__name__} normalises with mean {backbone.image_mean} and std "
            f"{backbone.image_std}; remove Normalize or state these numbers"
        )


def build_evaluation(
    experiment: Experiment,
    device: torch.device,
    model: nn.Module,
    classes: ClassNames | None = None,
    pictures: ReadSet | None = None,
) -> Evaluation:
    """The evaluation pictures and their scoring; labels mean `classes`, or the annotation file's own.

    `pictures` are they where they were read already.
    """
    settings = experiment.val_dataloader
    size = settings.total_batch_size
    if not isinstance(size, int):
        raise ValueError("val_dataloader.total_batch_size: `auto` is for training; give a number, say 32")
    pictures = pictures or read_set(experiment.data, settings.dataset, "val")
    dataset = build_dataset(experiment, settings, model, pictures, classes)
    loader = build_eval_loader(
        dataset,
        batch_size=-(-size // distributed.world_size()),
        num_workers=settings.num_workers,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        pin_memory=device.type == "cuda",
    )

    truth = dataset.annotations.stated
    assert truth is not None, "it was not read to be scored"
    evaluator = CocoEvaluator(dataset.ann_file, dataset.classes, truth, backend=experiment.evaluator.backend)
    postprocessor = build_postprocessor(experiment).to(device)
    parts = (loader, postprocessor, evaluator, dataset.classes, device, dataset.picture)
    return Evaluation(*parts, keep_ratio=experiment.keep_ratio)


def _share(total_batch_size: int | str) -> int:
    """One rank's part of a training batch."""
    world = distributed.world_size()
    assert isinstance(total_batch_size, int), "runs.py puts a number in the place of `auto`"
    if total_batch_size % world:
        raise ValueError(
            f"train_dataloader.total_batch_size is {total_batch_size}: {world} processes cannot share it; "
            f"use a multiple of {world}"
        )
    return total_batch_size // world


def build_loader(
    experiment: Experiment, device: torch.device, model: nn.Module, pictures: ReadSet | None = None
) -> TrainLoader:
    """The pictures to train on, in batches of this rank; `pictures` are they where they were read already.

    Raises:
        ValueError: As of `build_dataset`, or the processes cannot share a batch.
    """
    settings = experiment.train_dataloader
    mixing = Mixing(experiment.eval_spatial_size, experiment.mixing)
    pictures = pictures or read_set(experiment.data, settings.dataset, "train")
    return build_train_loader(
        build_dataset(experiment, settings, model, pictures, mixing=mixing),
        batch_size=_share(settings.total_batch_size),
        num_workers=settings.num_workers,
        shuffle=settings.shuffle,
        drop_last=settings.drop_last,
        seed=experiment.seed or 0,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        pin_memory=device.type == "cuda",
    )


def build_trainer(
    experiment: Experiment,
    device: torch.device,
    pictures: Mapping[str, ReadSet] = MappingProxyType({}),
    *,
    resume: Checkpoint | None = None,
    tune: str | None = None,
) -> Trainer:
    """Everything for a training run, with pretrained, resumed or tuned weights in place.

    `pictures` are those of `train` and `val` where they were read already.
    """
    model = build_model(experiment)
    loader = build_loader(experiment, device, model, pictures.get("train"))
    classes = loader.dataset.classes
    if tune is not None:
        _tune(model, Path(tune), classes)
    elif resume is None:
        load_pretrained(model.backbone)
    parts = TrainingParts(
        model=model,
        criterion=build_criterion(experiment).to(device),
        loader=loader,
        evaluation=build_evaluation(experiment, device, model, classes, pictures.get("val")),
        classes=classes,
        config_text=dump(experiment),
        guidance=build_guidance(experiment, model, device),
    )
    trainer = Trainer(experiment, parts, device)
    if resume is not None:
        trainer.resume(resume)
    return trainer


def _tune(model: DFINE, path: Path, classes: ClassNames) -> None:
    """Start from the checkpoint's weights; a backbone that it does not hold gets its pretrained ones."""
    checkpoint = read_checkpoint(path)
    if not covers(checkpoint, path, model, "backbone."):
        load_pretrained(model.backbone)
    logger.info("%s", tune_model(model, checkpoint, path, classes=classes))


def load_detector(
    config: Path, checkpoint: Path | None, overrides: Sequence[str] = (), device: torch.device | str = "cpu"
) -> tuple[DFINE, DFINEPostProcessor, ClassNames, Experiment]:
    """A model ready to detect, with its postprocessor, its classes and its experiment.

    Class names come from the checkpoint (COCO's or Objects365's for published files of as many classes);
    without them classes are called by their index.
    """
    experiment = load(config, overrides)
    model = build_model(experiment)
    names = ClassNames(
        tuple(str(i) for i in range(experiment.num_classes)), tuple(range(experiment.num_classes))
    )
    if checkpoint is not None:
        state = read_checkpoint(checkpoint)
        load_model(model, state, checkpoint)
        stated = class_names(state) or names
        if len(stated.names) != len(names.names):
            raise ValueError(
                f"{checkpoint}: {len(stated.names)} classes are stated in 'classes' (for .safetensors in "
                f"the JSON beside it), and num_classes is {len(names.names)}; correct them, or copy it again"
            )
        names = stated
    return model.to(device).eval(), build_postprocessor(experiment).to(device), names, experiment
