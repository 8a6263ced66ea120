"""Several pictures in one: which of Mosaic, MixUp and CopyBlend a picture gets, and the latter two.

Legend: H, W the size of the pictures that the transforms give.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core import MixingSettings
from ..structures import Target
from .affine import RandomAffine
from .mosaic import mosaic
from .partners import Partners, Source, Stored, load
from .seeds import seed_of, torch_cpu_seeded

TILE = 2 / 3  # longer side of a mosaic's picture, in longer sides of the network's input: 4:3 becomes 427x320
MIN_PASTED_AREA = 100  # square pixels; what is smaller says nothing of what it is
CHOICES, SECOND, PASTED = 1, 2, 3  # tell apart the seeds of a picture's draws


class Chances(NamedTuple):
    """How often pictures are mixed, as the plan's stage says.

    Attributes:
        mosaic: Chance that a picture is a mosaic of four.
        mixup: Chance that it is blended with another one.
        copyblend: Chance that, if not, objects of another one are blended in.
    """

    mosaic: float = 0.0
    mixup: float = 0.0
    copyblend: float = 0.0


class Mixing:
    """Mixes the pictures of a dataset as they are loaded.

    What comes out is a function of (seed, epoch, index): it depends neither on the process that loads it, nor
    on the others in its batch, nor on what the cache holds.

    Args:
        size_hw: Of the network's input, which the mosaic's pictures and the cache's are measured by.
        settings: The knobs.

    Raises:
        ValueError: A knob is out of range.
    """

    def __init__(self, size_hw: tuple[int, int], settings: MixingSettings) -> None:
        low, high = settings.blend
        if not 0 < low <= high < 1:
            raise ValueError(
                f"mixing.blend is {settings.blend}; two shares between 0 and 1 are allowed, the smaller first"
            )
        self.settings = settings
        self.affine = RandomAffine(
            degrees=settings.degrees, translate=settings.translate, scale=settings.scale
        )
        self.tile = max(1, round(max(size_hw) * TILE))
        self.partners = Partners(max(size_hw), settings.cache_mb * 2**20)

    def __call__(
        self, source: Source, index: int, epoch: int, chances: Chances, *, strong: bool
    ) -> tuple[Tensor, Target]:
        """One picture, transformed and mixed; as `Pipeline` gives them.

        Args:
            source: The dataset.
            index: Of the picture.
            epoch: Decides the draws.
            chances: How often.
            strong: Whether the pipeline's strong transforms run.
        """
        if not any(chances):
            self.partners.cache.clear()  # it is not needed before another stage
        draw = np.random.default_rng(seed_of(source.seed, epoch, index, CHOICES))
        four, two, pasted = (draw.random(3) < chances).tolist()
        pool = self.partners.pool(source, epoch, index) if any(chances) else np.array((index,))
        seeds = [seed_of(source.seed, epoch, index, *part) for part in ((), (SECOND,), (PASTED,))]

        def transformed(stored: Stored, seed: int, *, as_mosaic: bool, strong: bool) -> tuple[Tensor, Target]:
            others = [self.partners.get(source, int(k)) for k in draw.choice(pool, 3 * as_mosaic)]
            places = draw.permutation(4)
            with torch_cpu_seeded(seed):
                if as_mosaic:
                    stored = self._mosaic(stored, others, places)
                return source.transforms(*stored, strong=strong, keep_frame=as_mosaic)

        first = transformed(load(source, index), seeds[0], as_mosaic=four, strong=strong)
        if not (two or pasted):
            return first
        partner = self.partners.get(source, int(draw.choice(pool)))
        share = float(draw.uniform(*self.settings.blend))
        if two:
            again = bool(draw.random() < chances.mosaic)
            second = transformed(partner, seeds[1], as_mosaic=again, strong=strong)
            return mix_up(first, second, share)
        second = transformed(partner, seeds[2], as_mosaic=False, strong=False)
        return copy_blend(first, second, share, self.settings.num_pasted, draw)

    def _mosaic(self, own: Stored, others: list[Stored], places: Any) -> Stored:
        """The four in their places; but for the objects the target stays that of `own`."""
        four = [own, *others]
        whole = mosaic([four[k] for k in places], self.tile, self.affine)
        boxes, labels = torch.from_numpy(whole.boxes), torch.from_numpy(whole.labels)
        return Stored(whole.picture.render(), own.target._replace(boxes_xyxy_px=boxes, labels=labels))


def blend(first: Tensor, second: Tensor, share: float) -> Tensor:
    """uint8 of the same shape, `share` of it from the second."""
    return first.float().lerp_(second.float(), share).add_(0.5).to(torch.uint8)


def _check_one_size(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        sizes = " and ".join(f"{h}x{w}" for _, h, w in (first.shape, second.shape))
        raise ValueError(
            f"pictures of different sizes cannot be mixed: {sizes} (height x width); end the transforms with "
            "a Resize (or Resize and PadToSize), or set mixup and copyblend of all stages to 0"
        )


def mix_up(
    first: tuple[Tensor, Target], second: tuple[Tensor, Target], share: float
) -> tuple[Tensor, Target]:
    """Blend two pictures [3, H, W] and keep the objects of both (Zhang et al. 2018, as DEIM uses it).

    Raises:
        ValueError: They have different sizes.
    """
    (pixels, target), (others, other) = first, second
    _check_one_size(pixels, others)
    return blend(pixels, others, share), _joined(target, other.boxes_xyxy_px, other.labels)


def copy_blend(
    first: tuple[Tensor, Target],
    second: tuple[Tensor, Target],
    share: float,
    num_pasted: int,
    draw: np.random.Generator,
) -> tuple[Tensor, Target]:
    """Blend up to `num_pasted` objects of the second picture into the first, in places anywhere (DEIMv2).

    An object brings the pixels of its box, and only if the box has 100 square pixels or more. What was there
    stays seen through it, and stays an object.

    Raises:
        ValueError: The pictures [3, H, W] have different sizes.
    """
    (pixels, target), (others, other) = first, second
    _check_one_size(pixels, others)
    h, w = pixels.shape[1:]
    sides = other.boxes_xyxy_px[:, 2:] - other.boxes_xyxy_px[:, :2]
    large = (sides.prod(1) >= MIN_PASTED_AREA).nonzero().flatten().numpy()
    chosen = draw.permutation(large)[:num_pasted]
    pixels = pixels.clone()
    boxes = other.boxes_xyxy_px[chosen]
    shifts = torch.zeros_like(boxes)
    for box, shift in zip(boxes.tolist(), shifts, strict=True):
        left, top, right, bottom = (
            math.floor(box[0]),
            math.floor(box[1]),
            math.ceil(box[2]),
            math.ceil(box[3]),
        )
        down, across = draw.integers((h - bottom + top + 1, w - right + left + 1)).tolist()
        place = pixels[:, down : down + bottom - top, across : across + right - left]
        place.copy_(blend(place, others[:, top:bottom, left:right], share))
        shift.copy_(torch.tensor((across - left, down - top) * 2))
    return pixels, _joined(target, boxes + shifts, other.labels[chosen])


def _joined(target: Target, boxes: Tensor, labels: Tensor) -> Target:
    return target._replace(
        boxes_xyxy_px=torch.cat((target.boxes_xyxy_px, boxes)), labels=torch.cat((target.labels, labels))
    )
