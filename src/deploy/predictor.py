"""Picture files in, detections in their pixels out, the same way whatever runs the detector.

Legend: N pictures, K detections of a picture.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..data import Pipeline, build_pipeline, decode_rgb, to_device_images
from ..ops.padding import framed
from ..structures import ClassNames, Target
from .runtimes import Runtime

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Prediction(NamedTuple):
    """What was found in one picture, best first.

    Attributes:
        path: The picture's file.
        image: The picture as stored, RGB.
        labels: [K] int64, contiguous class indices from 0.
        boxes_xyxy_px: [K, 4] corners in pixels of `image`.
        scores: [K], each at least the predictor's threshold.
    """

    path: Path
    image: Image.Image
    labels: Tensor
    boxes_xyxy_px: Tensor
    scores: Tensor

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.image.height, self.image.width


def find_pictures(source: Path) -> list[Path]:
    """The picture that `source` is, or the pictures in the folder that it is, sorted by name.

    Folders inside the folder are left alone.

    Raises:
        ValueError: There is nothing at `source`, or no picture in it.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source}: no such picture or folder")
    found = sorted(path for path in source.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(
            f"{source}: no picture in this folder; looked for files ending in {', '.join(SUFFIXES)}"
        )
    return found


def evaluation_pipeline(input_hw: tuple[int, int], *, keep_ratio: bool = False) -> Pipeline:
    """What evaluation does to a picture: bring it to (height, width) `input_hw`, padded or stretched."""
    return build_pipeline([("Resize", {})], (), input_hw, keep_ratio=keep_ratio)


def prepare(images: Sequence[Image.Image], pipeline: Pipeline) -> Tensor:
    """Pictures, RGB of any sizes, as the detector takes them: [N, 3, H, W] float32 in [0, 1]."""
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0, (0, 0))
    tensors = [pipeline(image, nothing, strong=False)[0] for image in images]
    return to_device_images(torch.stack(tensors) if len(tensors) > 1 else tensors[0][None])


class Predictor:
    """A runtime with what comes before and after it."""

    def __init__(self, runtime: Runtime, *, threshold: float = 0.4, batch_size: int = 1) -> None:
        """Keep the settings.

        Args:
            runtime: What runs the detector.
            threshold: Detections of a lower score are left out.
            batch_size: Pictures in one call of the runtime.

        Raises:
            ValueError: A setting is out of range.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} was asked for, allowed are 0 to 1")
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} was asked for, allowed is 1 or more")
        self._runtime = runtime
        self._threshold = threshold
        self._batch_size = batch_size
        self._pipeline = evaluation_pipeline(runtime.input_hw, keep_ratio=runtime.keep_ratio)

    @property
    def classes(self) -> ClassNames:
        """The classes, by the index that a prediction gives as label."""
        return self._runtime.classes

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Detect in picture files, in their order; a batch is decoded when its first prediction is asked for.

        Raises:
            ValueError: A file cannot be read as a picture, or a score is not a number.
        """
        for start in range(0, len(paths), self._batch_size):
            yield from self._predict_batch(paths[start : start + self._batch_size])

    def _predict_batch(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Detect in the pictures of one call."""
        images = [decode_rgb(path) for path in paths]
        sizes = [(image.height, image.width) for image in images]
        if self._runtime.keep_ratio:
            sizes = [framed(size_hw, self._runtime.input_hw) for size_hw in sizes]
        sizes_hw = torch.tensor(sizes)
        found = self._runtime.run(prepare(images, self._pipeline), sizes_hw)
        for index, (path, image) in enumerate(zip(paths, images, strict=True)):
            scores = found.scores[index]
            if not (scores.isfinite().all() and found.boxes_xyxy_px[index].isfinite().all()):
                raise ValueError(
                    f"{path}: the detector gives scores or boxes that are no numbers; its weights are broken"
                )
            keep = scores >= self._threshold
            yield Prediction(
                path, image, found.labels[index][keep], found.boxes_xyxy_px[index][keep], scores[keep]
            )
