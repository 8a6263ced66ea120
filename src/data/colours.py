"""Photometric distortion of uint8 pictures, all of its steps in one pass over the pixels.

Legend: N pixels. It computes in float32 and rounds once, where torchvision rounds after every step.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SAMPLE_STEP = 4  # every 4th pixel of every 4th row is enough for a picture's mean grey (error: 0.5 levels)
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
    h, w, _ = pixels.shape
    flat = pixels.reshape(-1, 3)
    if colours.contrast is not None:  # the sample goes through the steps before it, as the picture does
        flat = torch.cat((flat, whole[::SAMPLE_STEP, ::SAMPLE_STEP].reshape(-1, 3)))
    planes = flat.T.contiguous().to(torch.float32)
    if colours.brightness is not None:
        planes.mul_(colours.brightness).clamp_(0, 255)
    if colours.contrast is not None and colours.contrast_first:
        _change_contrast(planes, colours.contrast, first=h * w)
    if colours.saturation is not None:
        torch.lerp(_grey(planes), planes, colours.saturation, out=planes).clamp_(0, 255)
    if colours.hue is not None:
        planes = shift_hue(planes, colours.hue)
    if colours.contrast is not None and not colours.contrast_first:
        _change_contrast(planes, colours.contrast, first=h * w)
    if colours.permutation is not None:
        planes = planes[list(colours.permutation)]
    # numpy's conversion takes a seventh of torch's time
    levels = torch.from_numpy(planes[:, : h * w].add_(0.5).numpy().astype("uint8"))
    return levels.T.contiguous().view(h, w, 3)


def _grey(planes: Tensor) -> Tensor:
    red, green, blue = planes
    return torch.add(red * GREY[0], green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def _change_contrast(planes: Tensor, factor: float, first: int) -> None:
    """In place; the columns from `first` on are the sample that the mean grey is taken of."""
    mean = float(_grey(planes[:, first:]).mean())
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
