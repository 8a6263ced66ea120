"""Photometric distortion of uint8 pictures, all of its steps in one pass over the pixels.

Legend: N pixels. It computes in float32 and rounds once, where torchvision rounds after every step.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 65536  # pixels; what is computed on stays in the processor's cache
SAMPLE_STEP = (
    7  # at most every 7th pixel of every 7th row; a prime, so that no common pattern falls in with it
)
GREY = (0.2989, 0.587, 0.114)


class Colours(NamedTuple):
    """What is drawn for one picture; None leaves a step out.

    Attributes:
        brightness: Factor.
        contrast: Factor of the distance to the picture's mean grey.
        saturation: Factor of the distance to the pixel's grey.
        hue: Shift of the hue in turns, from -0.5 to 0.5.
        contrast_first: Whether contrast comes before saturation and hue, or after them.
        permutation: Which channel becomes the first, second and third.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True
    permutation: tuple[int, ...] | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return any(step is not None for step in (*self[:4], self.permutation))


def distort(pixels: Tensor, colours: Colours, whole: Tensor) -> Tensor:
    """Other colours for a part of a picture.

    Args:
        pixels: uint8 [H, W, 3], the part.
        colours: What to do.
        whole: uint8 [h, w, 3], all of the picture, of which contrast needs the mean grey.

    Returns:
        uint8 [H, W, 3].
    """
    mean = _mean_grey(whole, colours) if colours.contrast is not None else 0.0
    flat = pixels.reshape(-1, 3)
    changed = np.empty(flat.shape, dtype=np.uint8)
    for start in range(0, len(flat), BLOCK):
        planes = _change(_planes(flat[start : start + BLOCK]), colours, mean)
        # numpy converts and interleaves in a seventh of torch's time
        levels = planes.add_(0.5).numpy().astype(np.uint8)
        np.stack(list(levels), axis=-1, out=changed[start : start + BLOCK])
    return torch.from_numpy(changed).view(pixels.shape)


def _planes(flat: Tensor) -> Tensor:
    """Float [3, N] of uint8 [N, 3]."""
    return flat.T.to(torch.float32, memory_format=torch.contiguous_format)


def _grey(planes: Tensor) -> Tensor:
    red, green, blue = planes
    return torch.add(red * GREY[0], green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def _mean_grey(whole: Tensor, colours: Colours) -> float:
    """What contrast is measured from: the mean grey of the picture after the steps before contrast."""
    before = colours._replace(contrast=None)
    if colours.contrast_first:
        before = Colours(brightness=colours.brightness)
    step = max(1, min(SAMPLE_STEP, min(whole.shape[:2]) // 32))
    sample = whole[::step, ::step].reshape(-1, 3)
    return float(_grey(_change(_planes(sample), before._replace(permutation=None), 0.0)).mean())


def _change(planes: Tensor, colours: Colours, mean: float) -> Tensor:
    """All steps on planes [3, N], which are overwritten."""
    contrast_at = None if colours.contrast is None else colours.contrast_first
    if colours.brightness is not None:
        planes.mul_(colours.brightness).clamp_(0, 255)
    if contrast_at is True:
        _change_contrast(planes, colours, mean)
    if colours.saturation is not None:
        torch.lerp(_grey(planes), planes, colours.saturation, out=planes).clamp_(0, 255)
    if colours.hue is not None:
        planes = shift_hue(planes, colours.hue)
    if contrast_at is False:
        _change_contrast(planes, colours, mean)
    return planes if colours.permutation is None else planes[list(colours.permutation)]


def _change_contrast(planes: Tensor, colours: Colours, mean: float) -> None:
    factor = 1.0 if colours.contrast is None else colours.contrast
    planes.mul_(factor).add_((1 - factor) * mean).clamp_(0, 255)


def shift_hue(planes: Tensor, turns: float) -> Tensor:
    """Turn the hue of RGB planes, and leave the largest and smallest value of each pixel as they are (HSV).

    Written without the hue itself: with M and m the largest and smallest value of a pixel and d the shift in
    sixths of a turn, 0 <= d <= 1, red becomes `clamp(R - G + (1 - d)(M + m) - (1 - 2d) B, m, M)`, and the
    others follow in a circle; for a negative shift the circle runs the other way. A third of a turn is red's
    values for green, green's for blue and blue's for red.

    Args:
        planes: float [3, N], any range.
        turns: From -0.5 to 0.5.

    Returns:
        [3, N].
    """
    thirds = round(turns * 3)
    turns -= thirds / 3
    planes = planes.roll(thirds, 0) if thirds else planes
    d = abs(turns) * 6
    largest = torch.maximum(torch.maximum(planes[0], planes[1]), planes[2])
    smallest = torch.minimum(torch.minimum(planes[0], planes[1]), planes[2])
    middle = (largest + smallest).mul_(1 - d)
    shifted = torch.empty_like(planes)
    for k, out in enumerate(shifted):
        following, last = planes[(k + 1) % 3], planes[(k + 2) % 3]
        if turns < 0:
            following, last = last, following
        torch.add(middle, last, alpha=2 * d - 1, out=out).add_(planes[k]).sub_(following)
        torch.clamp(out, smallest, largest, out=out)
    return shifted
