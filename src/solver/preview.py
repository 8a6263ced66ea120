"""A training batch as the model gets it, with its boxes and class names, as one picture for people."""

import torch
from PIL import Image
from torch import nn

from ..core import Experiment
from ..data import TrainLoader
from ..ops.boxes import cxcywh_to_xyxy
from ..ops.drawing import draw_boxes, grid, to_pil
from .stages import augmentation, plan_of

LEGIBLE = 320  # pixels of a side that names can be read on


def preview(
    experiment: Experiment, model: nn.Module, loader: TrainLoader, epoch: int
) -> tuple[Image.Image, str]:
    """The first batch of an epoch as a grid of pictures, small ones enlarged, and its augmentation in words.

    Args:
        experiment: Whose plan says how pictures are augmented.
        model: Whose backbone the plan is made for.
        loader: Of the training pictures; its position becomes this epoch's.
        epoch: From 0.

    Raises:
        ValueError: The run has no such epoch.
    """
    if not 0 <= epoch < experiment.epochs:
        raise ValueError(f"epoch {epoch} does not come: the run has epochs 0 to {experiment.epochs - 1}")
    stage = next(s for s in plan_of(experiment, model) if s.start <= epoch < s.end)
    stage = stage._replace(strong_augmentation=stage.strong_augmentation and loader.has_strong_augmentation)
    loader.set_epoch(epoch, strong_augmentation=stage.strong_augmentation, chances=stage.chances)
    batch = next(iter(loader))
    h, w = batch.images.shape[-2:]
    factor = max(1, LEGIBLE // max(h, w))
    size = (w * factor, h * factor)
    corners = cxcywh_to_xyxy(batch.targets.boxes_cxcywh) * torch.tensor(size * 2)
    counts = list(batch.targets.counts)
    pictures = [
        draw_boxes(to_pil(image).resize(size), boxes, labels, None, loader.dataset.classes.names)
        for image, boxes, labels in zip(
            batch.images, torch.split(corners, counts), torch.split(batch.targets.labels, counts), strict=True
        )
    ]
    return grid(pictures), augmentation(stage)
