"""What happens to a batch on the device: from uint8 to float, and training at changing sizes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .seeds import seed_of

STEP = 32  # the model's largest stride: other sizes would be padded
SPREAD = 0.25


def sizes_for(base_hw: tuple[int, int], base_size_repeat: int) -> list[tuple[int, int]]:
    """The (height, width) sizes to train at: from 0.75 to 1.25 times the base, in steps of 32 pixels.

    For 640 they are 480, 512, ..., 608, then 640 `base_size_repeat` times, then 672, ..., 800 (D-FINE's
    recipe). The longer side of a base that is not square takes these steps, the other follows to the nearest
    multiple of 32.

    Raises:
        ValueError: `base_size_repeat` is less than 1.
    """
    if base_size_repeat < 1:
        raise ValueError(f"multi-scale: base_size_repeat is {base_size_repeat}; 1 or more is allowed")
    longer = max(base_hw)
    first = -int(-longer * (1 - SPREAD) // STEP) * STEP
    others = [side for side in range(first, int(longer * (1 + SPREAD)) + 1, STEP) if side != longer]

    def scaled(side: int) -> tuple[int, int]:
        h, w = (side if s == longer else max(STEP, round(s * side / longer / STEP) * STEP) for s in base_hw)
        return h, w

    smaller = [scaled(side) for side in others if side < longer]
    larger = [scaled(side) for side in others if side > longer]
    return [*smaller, *[(base_hw[0], base_hw[1])] * base_size_repeat, *larger]


def draw_size(sizes: Sequence[tuple[int, int]], seed: int, step: int) -> tuple[int, int]:
    """One of `sizes`, each with the same chance: a pure function, so that all ranks draw the same size.

    Ranks at different sizes would wait for the slowest one: with this list and 8 ranks, a third of the time.
    """
    return sizes[seed_of(seed, step, len(sizes)) % len(sizes)]


def to_device_images(images: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
    """Float pictures [B, 3, h, w] in [0, 1] from uint8 ones [B, 3, H, W], on the device that holds them.

    Resizing is bilinear with antialiasing, as the loader's Resize is: the model then sees one kind of picture
    in training and evaluation (upstream takes the nearest pixel here).

    Args:
        images: The batch.
        size_hw: Size to resize to; None leaves the size as it is.
    """
    floats = images.contiguous().to(torch.float32).div_(255)
    if size_hw is None or tuple(images.shape[-2:]) == tuple(size_hw):
        return floats
    return F.interpolate(floats, size=list(size_hw), mode="bilinear", antialias=True).clamp_(0, 1)
