"""Pictures in, detections in their pixels out, the same way whatever runs the detector.

Legend: N pictures, K detections of a picture.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..data import Pipeline, build_pipeline, to_device_images
from ..ops.padding import framed
from ..structures import Target
from .runtimes import Runtime


class Found(NamedTuple):
    """What was found in one picture, best first.

    Attributes:
        scores: [K] in [0, 1].
        labels: [K] int64, contiguous class indices from 0.
        boxes_xyxy_px: [K, 4] corners in pixels of the picture.
    """

    scores: Tensor
    labels: Tensor
    boxes_xyxy_px: Tensor

    def above(self, threshold: float) -> "Found":
        """Without detections of a lower score."""
        keep = self.scores >= threshold
        return Found(*(part[keep] for part in self))


class Prepared(NamedTuple):
    """A picture as the detector takes it, apart from being one of a batch.

    Attributes:
        pixels: [3, H, W] uint8, RGB.
        size_hw: (height, width) of the picture as stored.
        name: What to call it in a message.
    """

    pixels: Tensor
    size_hw: tuple[int, int]
    name: str


def evaluation_pipeline(input_hw: tuple[int, int], *, keep_ratio: bool = False) -> Pipeline:
    """What evaluation does to a picture: bring it to (height, width) `input_hw`, padded or stretched."""
    return build_pipeline([("Resize", {})], (), input_hw, keep_ratio=keep_ratio)


def prepare(
    images: Sequence[Image.Image], input_hw: tuple[int, int], *, keep_ratio: bool = False
) -> tuple[Tensor, Tensor]:
    """Pictures, RGB of any sizes, as a runtime takes them.

    Returns:
        [N, 3, H, W] float32 in [0, 1], and [N, 2] int64 as `runtime_sizes` gives them.
    """
    pipeline = evaluation_pipeline(input_hw, keep_ratio=keep_ratio)
    sizes_hw = [(image.height, image.width) for image in images]
    pixels = _batch([_pixels(image, pipeline) for image in images])
    return pixels, runtime_sizes(sizes_hw, input_hw, keep_ratio=keep_ratio)


def runtime_sizes(
    sizes_hw: Iterable[tuple[int, int]], input_hw: tuple[int, int], *, keep_ratio: bool
) -> Tensor:
    """[N, 2] int64, (height, width) of pictures as stored, with the padding that keeps their ratio."""
    return torch.tensor([framed(size_hw, input_hw) if keep_ratio else size_hw for size_hw in sizes_hw])


def _pixels(image: Image.Image, pipeline: Pipeline) -> Tensor:
    """[3, H, W] uint8 of one picture."""
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0, (0, 0))
    return pipeline(image, nothing, strong=False)[0]


def _batch(tensors: Sequence[Tensor]) -> Tensor:
    """[N, 3, H, W] float32 in [0, 1]."""
    return to_device_images(torch.stack(tuple(tensors)) if len(tensors) > 1 else tensors[0][None])


class Predictor:
    """A runtime with what comes before and after it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._pipeline = evaluation_pipeline(runtime.input_hw, keep_ratio=runtime.keep_ratio)

    def predict(self, images: Sequence[Image.Image], names: Sequence[str], threshold: float) -> list[Found]:
        """Detect in pictures, at least one, in one call of the runtime.

        Args:
            images: RGB of any sizes.
            names: What to call each in a message.
            threshold: Detections of a lower score are left out.

        Raises:
            ValueError: A score or a box is not a number.
        """
        pictures = [self.prepare(image, name) for image, name in zip(images, names, strict=True)]
        return [found.above(threshold) for found in self.detect(pictures)]

    def prepare(self, image: Image.Image, name: str) -> Prepared:
        """What comes before the runtime, for one picture, RGB of any size."""
        return Prepared(_pixels(image, self._pipeline), (image.height, image.width), name)

    def detect(self, pictures: Sequence[Prepared]) -> list[Found]:
        """All that the detector gives for pictures, at least one, in one call of the runtime.

        Raises:
            ValueError: A score or a box is not a number.
        """
        runtime = self.runtime
        stored = (picture.size_hw for picture in pictures)
        sizes_hw = runtime_sizes(stored, runtime.input_hw, keep_ratio=runtime.keep_ratio)
        found = runtime.run(_batch([picture.pixels for picture in pictures]), sizes_hw)
        for picture, _, boxes, scores in zip(pictures, *found, strict=True):
            if not (scores.isfinite().all() and boxes.isfinite().all()):
                raise ValueError(
                    f"{picture.name}: the detector gives scores or boxes that are no numbers; its weights "
                    "are broken"
                )
        return [Found(scores, labels, boxes) for labels, boxes, scores in zip(*found, strict=True)]
