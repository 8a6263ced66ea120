"""Turning, scaling and shifting of pictures; their boxes follow.

Legend: N boxes. Coordinates are of edges, as boxes are: the centre of the first pixel is at (0.5, 0.5). A map
is a float64 matrix [2, 3] that takes a point (x, y, 1) of the picture to one of the picture as it will be.
"""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .picture import Picture
from .transforms import Sample

Array = np.ndarray[Any, Any]

MIN_VISIBLE = 0.1
"""A box of which less than this share of the area is left in the picture is dropped."""


class RandomVerticalFlip:
    """Mirror top and bottom with chance `p`."""

    moves_frame = True

    def __init__(self, *, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"RandomVerticalFlip: p is {p}; a probability from 0 to 1 is allowed")
        self.p = p

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps mirrored."""
        if torch.rand(1) >= self.p:
            return sample
        boxes = sample.boxes.copy()
        boxes[:, 1::2] = sample.picture.hw[0] - sample.boxes[:, 3::-2]
        return sample._replace(picture=Picture.of(sample.picture.render().flip(0)), boxes=boxes)


class RandomAffine:
    """With chance `p`, turn, scale and shift the picture about its centre; its size stays.

    What comes in from outside has the grey level `fill`. A box becomes the smallest upright one around what
    is seen of the turned one, and is dropped where that is less than a tenth of its area.

    Args:
        degrees: Largest angle, either way.
        translate: Largest shift, either way, in shares of the width and of the height.
        scale: Smallest and largest factor.
        p: Chance.
        fill: Grey level.
    """

    moves_frame = True

    def __init__(
        self,
        *,
        degrees: float = 10.0,
        translate: tuple[float, float] = (0.1, 0.1),
        scale: tuple[float, float] = (0.5, 1.5),
        p: float = 1.0,
        fill: int = 0,
    ) -> None:
        if not 0 <= degrees <= 180 or not 0 <= p <= 1 or not 0 <= fill <= 255:
            raise ValueError(
                f"RandomAffine: degrees {degrees}, p {p}, fill {fill}; from 0 to 180 degrees, a probability "
                "and a grey level from 0 to 255 are allowed"
            )
        if len(translate) != 2 or not 0 <= min(translate) <= max(translate) <= 1:
            raise ValueError(f"RandomAffine: translate is {translate}; two shares from 0 to 1 are allowed")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"RandomAffine: scale is {scale}; two factors above 0 are allowed, the smaller first"
            )
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self.p = p
        self.fill = fill

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps turned, scaled and shifted."""
        if torch.rand(1) >= self.p:
            return sample
        turn, grow, right, down = torch.rand(4, dtype=torch.float64).tolist()
        h, w = sample.picture.hw
        scale = self.scale[0] + grow * (self.scale[1] - self.scale[0])
        shift = ((2 * right - 1) * self.translate[0] * w, (2 * down - 1) * self.translate[1] * h)
        return move(sample, math.radians((2 * turn - 1) * self.degrees), scale, shift, self.fill)


def move(sample: Sample, angle: float, scale: float, shift: tuple[float, float], fill: int) -> Sample:
    """The sample turned by `angle` (radians) and scaled about its centre, then shifted by (x, y) pixels.

    What becomes smaller is first resized with antialiasing, so that nothing flickers out of sight.
    """
    h, w = sample.picture.hw
    before = min(scale, 1.0)
    shrunk_h, shrunk_w = max(1, round(h * before)), max(1, round(w * before))
    shrunk = sample.picture.resize((shrunk_h, shrunk_w)) if before < 1 else sample.picture
    boxes = sample.boxes * np.array((shrunk_w / w, shrunk_h / h) * 2)
    cos, sin = math.cos(angle) * scale / before, math.sin(angle) * scale / before
    turned = np.array(((cos, -sin), (sin, cos)))
    centre = turned @ (shrunk_w / 2, shrunk_h / 2)
    matrix = np.column_stack((turned, np.array((w / 2, h / 2)) + shift - centre))
    pixels = warp(shrunk.render(), matrix, (h, w), fill)
    boxes, kept = moved_boxes(boxes, matrix, (h, w))
    return Sample(Picture.of(pixels), boxes.astype(np.float32)[kept], sample.labels[kept])


def warp(pixels: Tensor, matrix: Array, hw: tuple[int, int], fill: int) -> Tensor:
    """Pixels uint8 [h, w, 3] moved by `matrix` onto a canvas [H, W, 3] of grey level `fill`, bilinear."""
    inverse = np.linalg.inv(np.vstack((matrix, (0.0, 0.0, 1.0))))[:2]
    image = Image.fromarray(np.ascontiguousarray(pixels.numpy())).transform(
        (hw[1], hw[0]),
        Image.Transform.AFFINE,
        inverse.ravel().tolist(),
        Image.Resampling.BILINEAR,
        fillcolor=(fill, fill, fill),
    )
    return torch.from_numpy(np.array(image))


def moved_boxes(boxes: Array, matrix: Array, hw: tuple[int, int]) -> tuple[Array, Array]:
    """Boxes [N, 4] moved by `matrix`: the smallest upright ones around what is seen of them in `hw`.

    The corners of what is seen, a convex polygon, are the box's own that lie in the picture, where its sides
    cross the picture's, and the picture's corners that lie in it.

    Returns:
        The boxes [N, 4], and which [N] keep enough of their area to be seen.
    """
    far = np.array((hw[1], hw[0]), dtype=np.float64)
    linear, offset = matrix[:, :2], matrix[:, 2]
    x0, y0, x1, y1 = boxes.astype(np.float64).T
    around = np.stack((np.stack((x0, x1, x1, x0), 1), np.stack((y0, y0, y1, y1), 1)), 2)  # [N, 4, 2]
    own = around @ linear.T + offset
    crossings = [_crossings(own, np.roll(own, -1, 1), axis, at) for axis in (0, 1) for at in (0.0, far[axis])]
    corners = np.array(((0, 0), (far[0], 0), far, (0, far[1])))
    # the picture's corners, where the box was before it moved
    stood = (corners - offset) @ np.linalg.inv(linear).T
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    covered = np.all((stood >= low) & (stood <= high), -1)[..., None]  # [N, 4, 1]
    points = np.concatenate((own, *crossings, np.where(covered, corners, np.nan)), 1)
    slack = 1e-6 * far.max()
    seen = np.all((points >= -slack) & (points <= far + slack), -1, keepdims=True)
    least = np.where(seen, points, np.inf).min(1)
    most = np.where(seen, points, -np.inf).max(1)
    moved = np.clip(np.concatenate((least, most), 1), 0, np.tile(far, 2))
    whole = (own.max(1) - own.min(1)).prod(1)
    left = np.maximum(moved[:, 2:] - moved[:, :2], 0).prod(1)
    kept: Array = seen.any((1, 2)) & (left >= MIN_VISIBLE * whole) & (left > 0)
    return moved, kept


def _crossings(begin: Array, end: Array, axis: int, at: float) -> Array:
    """Where sides from `begin` to `end`, [N, 4, 2] both, cross the line at `at` on an axis, or NaN."""
    length = end[..., axis] - begin[..., axis]
    parallel = np.abs(length) < 1e-12
    way = np.where(parallel, np.nan, (at - begin[..., axis]) / np.where(parallel, 1.0, length))
    way = np.where((way >= 0) & (way <= 1), way, np.nan)
    crossing: Array = begin + way[..., None] * (end - begin)
    return crossing
