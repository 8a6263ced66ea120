"""Run a model over the evaluation pictures and score it."""

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from ..distributed import is_main
from ..evaluation import CocoEvaluator, CocoMetrics
from ..ops.drawing import draw_boxes
from ..structures import Batch, ClassNames, Detections, FinalOutput
from .precision import Precision

PostProcessor = Callable[[FinalOutput, torch.Tensor], Detections]


class Evaluation:
    """The evaluation pictures, and how detections on them are made and scored.

    Args:
        loader: Gives every picture of this rank's share once.
        postprocessor: Turns the model's output into detections in pixels.
        make_evaluator: A fresh evaluator for each run.
        classes: Names for annotated pictures.
        device: Where the model runs.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        postprocessor: PostProcessor,
        make_evaluator: Callable[[], CocoEvaluator],
        classes: ClassNames,
        device: torch.device,
    ) -> None:
        self.loader = loader
        self.postprocessor = postprocessor
        self.make_evaluator = make_evaluator
        self.classes = classes
        self.device = device

    @torch.inference_mode()
    def __call__(self, model: nn.Module, precision: Precision) -> CocoMetrics:
        """COCO's numbers for `model` (in evaluation mode) over all pictures; the same on every rank."""
        evaluator = self.make_evaluator()
        for batch in tqdm(self.loader, desc="evaluate", unit="batch", disable=not is_main(), leave=False):
            evaluator.update(batch.targets.image_ids, self._detect(model, precision, batch))
        return evaluator.compute()

    @torch.inference_mode()
    def samples(
        self, model: nn.Module, precision: Precision, *, count: int, threshold: float
    ) -> list[Image.Image]:
        """The first pictures as the network sees them, with what it finds above `threshold`."""
        pictures: list[Image.Image] = []
        for batch in islice(self.loader, 1):
            height, width = batch.images.shape[-2:]
            seen = batch._replace(
                targets=batch.targets._replace(sizes_hw=((height, width),) * batch.images.shape[0])
            )
            found = self._detect(model, precision, seen)
            for image, labels, boxes, scores in islice(zip(batch.images, *found, strict=True), count):
                keep = (scores >= threshold).cpu()
                pictures.append(
                    draw_boxes(
                        image,
                        boxes.cpu()[keep],
                        labels.cpu()[keep],
                        scores.cpu()[keep],
                        names=self.classes.names,
                    )
                )
        return pictures

    def _detect(self, model: nn.Module, precision: Precision, batch: Batch) -> Detections:
        images = batch.images.to(self.device, non_blocking=True).float() / 255
        with precision.autocast():
            output = model(images)
        sizes_hw = torch.tensor(batch.targets.sizes_hw, device=self.device)
        return self.postprocessor(FinalOutput(output.logits.float(), output.boxes_cxcywh.float()), sizes_hw)
