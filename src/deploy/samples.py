"""A few pictures to run two forms of a detector on: real ones where there are any, else made-up ones."""

import logging
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..core import Experiment
from ..data import Origin, PictureError, decode_rgb, find_origin
from .predictor import prepare
from .runtimes import Runtime
from .scores import read_leniently

logger = logging.getLogger(__name__)

PICTURE_SIDE = 640
NUM_MADE_UP, NUM_REAL = 3, 8


class Samples(NamedTuple):
    """Pictures as a runtime takes them.

    Attributes:
        images: [N, 3, H, W] float32 RGB in [0, 1].
        sizes_hw: [N, 2] int64, (height, width) of each picture as stored, with its padding if it has any.
        source: What they are, in words.
    """

    images: Tensor
    sizes_hw: Tensor
    source: str


def pictures(count: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Made-up pictures [count, 3, H, W] in [0, 1]: soft blobs, hard edges and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size_hw
    soft = torch.nn.functional.interpolate(
        torch.rand(count, 3, 6, 6, generator=generator), size_hw, mode="bicubic", align_corners=False
    )
    hard = torch.nn.functional.interpolate(
        torch.rand(count, 3, 9, 9, generator=generator), size_hw, mode="nearest"
    )
    noise = torch.rand(count, 3, height, width, generator=generator)
    return (0.55 * soft + 0.4 * hard + 0.05 * noise).clamp(0, 1)


def made_up(size_hw: tuple[int, int], count: int = NUM_MADE_UP) -> Samples:
    """Pictures that need no file, of two sizes as stored."""
    shapes = ((PICTURE_SIDE * 3 // 4, PICTURE_SIDE), (PICTURE_SIDE, PICTURE_SIDE // 2))
    sizes_hw = torch.tensor([shapes[index % 2] for index in range(count)])
    return Samples(pictures(count, size_hw), sizes_hw, "made-up pictures")


def try_out(runtime: Runtime, name: str, samples: Samples) -> None:
    """Run a file that was just written.

    Raises:
        ValueError: A score or a box is not finite; `name` says of which file.
    """
    found = runtime.run(samples.images, samples.sizes_hw)
    if not (found.scores.isfinite().all() and found.boxes_xyxy_px.isfinite().all()):
        raise ValueError(f"{name}: gives scores or boxes that are not finite on {samples.source}")


def first_of(
    origin: Origin, input_hw: tuple[int, int], *, keep_ratio: bool = False, count: int = NUM_REAL
) -> Samples:
    """The first pictures of a dataset that can be read, prepared as evaluation prepares them.

    Raises:
        ValueError: The annotation file is missing or faulty, or none of its pictures can be read.
    """
    images = list(islice(readable(origin), count))
    if not images:
        raise ValueError(f"none of the pictures of {origin.ann_file} can be read in {origin.img_folder}")
    prepared = prepare(images, input_hw, keep_ratio=keep_ratio)
    return Samples(*prepared, f"the first pictures of {origin.ann_file}")


def readable(origin: Origin) -> Iterator[Image.Image]:
    """The pictures of a dataset that can be read, as stored, one by one.

    Raises:
        ValueError: The annotation file is missing or faulty.
    """
    if not origin.img_folder.is_dir():
        return
    annotations = read_leniently(origin).annotations
    for index, (height, width) in enumerate(annotations.sizes_hw.tolist()):
        try:
            yield decode_rgb(origin.img_folder / annotations.file_name(index), (height, width))
        except PictureError as error:
            logger.warning("left out of the comparison: %s", error)


def samples_of(experiment: Experiment, data: Origin | None = None) -> Samples:
    """Pictures of `data`, else of the experiment's validation set, or made-up ones where that cannot be read.

    Raises:
        ValueError: `data` cannot be read.
    """
    input_hw, keep_ratio = experiment.eval_spatial_size, experiment.keep_ratio
    if data is not None:
        return first_of(data, input_hw, keep_ratio=keep_ratio)
    try:
        origin = find_origin(experiment.data, experiment.val_dataloader.dataset, "val")
        return first_of(origin, input_hw, keep_ratio=keep_ratio)
    except ValueError as error:
        logger.info("the validation set cannot be read, so made-up pictures take its place: %s", error)
        return made_up(input_hw)
