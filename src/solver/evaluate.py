"""Run a model over the evaluation pictures and score it."""

import sys
from collections.abc import Callable, Iterable

import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from ..data import to_device_images
from ..distributed import is_main
from ..door import Interrupted
from ..evaluation import CocoEvaluator, CocoMetrics, Pictures
from ..ops.drawing import draw_boxes
from ..ops.padding import framed
from ..structures import Batch, ClassNames, Detections, FinalOutput
from .interrupt import StopRequest
from .precision import Precision

SHOWN_ABOVE = 0.4  # score

PostProcessor = Callable[[FinalOutput, torch.Tensor], Detections]


class Evaluation:
    """The evaluation pictures, and how detections on them are made and scored.

    Args:
        loader: Gives every picture of this rank's share once.
        postprocessor: Turns the model's output into detections in pixels.
        evaluator: Scores them.
        classes: Names for annotated pictures.
        device: Where the model runs.
        pictures: The pictures as stored, for a report.
        keep_ratio: Whether the loader pads pictures before it resizes them.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        postprocessor: PostProcessor,
        evaluator: CocoEvaluator,
        classes: ClassNames,
        device: torch.device,
        pictures: Pictures,
        *,
        keep_ratio: bool = False,
    ) -> None:
        self.loader = loader
        self.postprocessor = postprocessor
        self.evaluator = evaluator
        self.classes = classes
        self.device = device
        self.pictures = pictures
        self.keep_ratio = keep_ratio

    @torch.inference_mode()
    def __call__(
        self,
        model: nn.Module,
        precision: Precision,
        *,
        num_pictures: int = 0,
        stop: StopRequest | None = None,
    ) -> tuple[CocoMetrics, list[Image.Image]]:
        """COCO's numbers for `model` (in evaluation mode) over all pictures; the same on every rank.

        Also the first `num_pictures` of this rank, as the network sees them, with what was found above
        `SHOWN_ABOVE`.

        Raises:
            Interrupted: `stop` was asked for on some rank; it is raised on all of them.
        """
        self.evaluator.reset()
        pictures: list[Image.Image] = []
        for batch in tqdm(
            self.loader,
            desc="evaluate",
            unit="batch",
            disable=not (is_main() and sys.stderr.isatty()),
            leave=False,
        ):
            if stop is not None and stop.local() is not None:
                break
            found = self._detect(model, precision, batch)
            self.evaluator.update(batch.targets.image_ids, found)
            pictures += self._annotated(batch, found, num_pictures - len(pictures))
        if stop is not None and (signal := stop.agreed(at_once=True)) is not None:
            raise Interrupted(signal)
        return self.evaluator.compute(), pictures

    def _annotated(self, batch: Batch, found: Detections, count: int) -> list[Image.Image]:
        drawn = []
        height, width = batch.images.shape[-2:]
        for i in range(min(count, len(batch.images))):
            labels, boxes, scores = (part[i].cpu() for part in found)
            frame_hw = self._frames(batch)[i]
            seen = boxes * boxes.new_tensor([width / frame_hw[1], height / frame_hw[0]] * 2)
            keep = scores >= SHOWN_ABOVE
            drawn.append(
                draw_boxes(batch.images[i], seen[keep], labels[keep], scores[keep], names=self.classes.names)
            )
        return drawn

    def _detect(self, model: nn.Module, precision: Precision, batch: Batch) -> Detections:
        images = to_device_images(batch.images.to(self.device, non_blocking=True))
        with precision.autocast():
            output = model(images)
        sizes_hw = torch.tensor(self._frames(batch), device=self.device)
        return self.postprocessor(FinalOutput(output.logits.float(), output.boxes_cxcywh.float()), sizes_hw)

    def _frames(self, batch: Batch) -> list[tuple[int, int]]:
        """(height, width) of what of each picture as stored, padding included, became the network's input."""
        stored, input_hw = batch.targets.sizes_hw, (batch.images.shape[-2], batch.images.shape[-1])
        return [framed(size_hw, input_hw) for size_hw in stored] if self.keep_ratio else list(stored)
