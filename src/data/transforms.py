"""What may happen to a picture and its boxes, under the names that D-FINE's YAML files use.

Every transform takes and gives a `Sample`. It draws as torchvision's transform of its name does, from torch's
global CPU generator, moves the boxes, and notes in the `Picture` what is to be done to the pixels. Boxes are
numpy's here: on a few of them an operation takes it a quarter of torch's time.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from ..ops.padding import framed
from .colours import Colours
from .picture import Picture

Array = np.ndarray[Any, Any]


class Sample(NamedTuple):
    """A picture on its way through the transforms.

    Attributes:
        picture: Its pixels, and what is to be done to them.
        boxes: float32 [N, 4], corners in pixels of the picture as it will be.
        labels: int64 [N].
    """

    picture: Picture
    boxes: Array
    labels: Array


def _corners(x: float, y: float) -> Array:
    return np.array((x, y, x, y), dtype=np.float32)


def _clip(boxes: Array, hw: tuple[int, int]) -> Array:
    return np.minimum(np.maximum(boxes, 0), _corners(hw[1], hw[0]))


def drop_small_boxes(sample: Sample, min_size: float) -> Sample:
    """Clip boxes to the picture, and drop those with a side shorter than `min_size` pixels (or empty)."""
    clipped = _clip(sample.boxes, sample.picture.hw)
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = ((sides >= min_size) & (sides > 0)).all(-1)
    return sample._replace(boxes=clipped[kept], labels=sample.labels[kept])


def _check(name: str, knob: str, found: float, kind: str, high: float) -> None:
    if not 0 <= found <= high:
        raise ValueError(f"{name}: {knob} is {found}; {kind} from 0 to {high} is allowed")


def _check_range(name: str, knob: str, found: tuple[float, float], low: float, high: float) -> None:
    if len(found) != 2 or not low <= found[0] <= found[1] <= high:
        raise ValueError(
            f"{name}: {knob} is {tuple(found)}; two numbers from {low} to {high} are "
            "allowed, the smaller first"
        )


class RandomPhotometricDistort:
    """Change brightness, contrast, saturation, hue and the channels' order, each with chance `p` (SSD)."""

    def __init__(
        self,
        *,
        p: float = 0.5,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
    ) -> None:
        _check("RandomPhotometricDistort", "p", p, "a probability", 1)
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for knob, found in factors.items():
            _check_range("RandomPhotometricDistort", knob, found, 0, float("inf"))
        _check_range("RandomPhotometricDistort", "hue", hue, -0.5, 0.5)
        self.p = p
        self.ranges = (*factors.values(), hue)

    def draw(self) -> Colours:
        """What happens to one picture."""
        brightness, contrast, saturation, hue = (
            float(torch.empty(1).uniform_(low, high)) if torch.rand(1) < self.p else None
            for low, high in self.ranges
        )
        contrast_first = bool(torch.rand(()) < 0.5)
        permutation = tuple(torch.randperm(3).tolist()) if torch.rand(1) < self.p else None
        return Colours(brightness, contrast, saturation, hue, contrast_first, permutation)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with other colours."""
        colours = self.draw()
        if not colours.changes:
            return sample
        return sample._replace(picture=sample.picture.distort(colours))


class RandomZoomOut:
    """With chance `p`, lay the picture on a canvas of `side_range` times its sides, of grey level `fill`."""

    moves_frame = True

    def __init__(
        self, *, fill: int = 0, side_range: tuple[float, float] = (1.0, 4.0), p: float = 0.5
    ) -> None:
        _check("RandomZoomOut", "p", p, "a probability", 1)
        _check_range("RandomZoomOut", "side_range", side_range, 1, float("inf"))
        _check("RandomZoomOut", "fill", fill, "a grey level", 255)
        self.p = p
        self.fill = fill
        self.side_range = side_range

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps on a larger canvas."""
        if torch.rand(1) >= self.p:
            return sample
        low, high = self.side_range
        h, w = sample.picture.hw
        ratio = low + torch.rand(1) * (high - low)
        canvas_w, canvas_h = int(w * ratio), int(h * ratio)
        place = torch.rand(2)
        left, top = int((canvas_w - w) * place[0]), int((canvas_h - h) * place[1])
        picture = sample.picture.zoom_out((-top, -left, canvas_h, canvas_w), self.fill)
        return sample._replace(picture=picture, boxes=sample.boxes + _corners(left, top))


class RandomIoUCrop:
    """With chance `p`, crop so that one box overlaps the crop by an IoU drawn from `sampler_options` (SSD).

    Boxes with their centre outside the crop are dropped, the others clipped. An option of 1 or more leaves
    the picture as it is, and so does a picture without boxes.
    """

    moves_frame = True

    def __init__(
        self,
        *,
        p: float = 0.8,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        sampler_options: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
    ) -> None:
        _check("RandomIoUCrop", "p", p, "a probability", 1)
        if not 0 < min_scale <= max_scale <= 1:
            raise ValueError(
                f"RandomIoUCrop: 0 < min_scale <= max_scale <= 1 must hold, got {min_scale}, {max_scale}"
            )
        if max(sampler_options, default=0.0) < 1:
            raise ValueError(
                f"RandomIoUCrop: sampler_options {sampler_options} must hold a value of 1 or more (leave the "
                "picture as it is), else a picture without a possible crop would be tried for ever"
            )
        self.p = p
        self.scales = (min_scale, max_scale)
        self.aspect_ratios = (min_aspect_ratio, max_aspect_ratio)
        self.options = sampler_options
        self.trials = trials

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps cropped."""
        if torch.rand(1) >= self.p or len(sample.boxes) == 0:
            return sample
        drawn = self._draw(sample.boxes, sample.picture.hw)
        if drawn is None:
            return sample
        (left, top, right, bottom), kept = drawn
        hw = (bottom - top, right - left)
        boxes = _clip(sample.boxes[kept] - _corners(left, top), hw)
        return Sample(sample.picture.crop((top, left, *hw)), boxes, sample.labels[kept])

    def _draw(self, boxes: Array, canvas_hw: tuple[int, int]) -> tuple[list[int], Array] | None:
        """A crop's corners and which boxes [N] have their centre in it; None to leave the picture as it is.

        The distribution is that of torchvision's transform of this name; all trials of one overlap are drawn
        at once (T trials), which takes a tenth of the time.
        """
        sides = np.array((canvas_hw[1], canvas_hw[0]))
        centres = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        low, high = self.scales
        while True:
            min_iou = self.options[int(torch.randint(len(self.options), (1,)))]
            if min_iou >= 1:
                return None
            drawn = torch.rand(2, self.trials, 2).numpy()
            sizes = (sides * (low + (high - low) * drawn[0])).astype(np.int64)
            corners = ((sides - sizes) * drawn[1]).astype(np.int64)
            crops = np.concatenate((corners, corners + sizes), 1)
            ratios = sizes[:, 0] / np.maximum(sizes[:, 1], 1)
            inside: Array = np.all(
                (crops[:, None, :2] < centres) & (centres < crops[:, None, 2:]), -1
            )  # [T, N]
            overlaps = (_ious(crops, boxes) * inside).max(1)
            allowed = (ratios >= self.aspect_ratios[0]) & (ratios <= self.aspect_ratios[1])
            allowed &= (sizes > 0).all(1) & inside.any(1) & (overlaps >= min_iou)
            if allowed.any():
                first = int(allowed.argmax())
                return crops[first].tolist(), inside[first]


def _ious(crops: Array, boxes: Array) -> Array:
    """Intersection over union [T, N] of crops [T, 4] and boxes [N, 4], all corners."""
    low = np.maximum(crops[:, None, :2], boxes[:, :2])
    high = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    areas = [(corners[:, 2:] - corners[:, :2]).prod(-1) for corners in (crops, boxes)]
    union = areas[0][:, None] + areas[1] - shared
    ious: Array = shared / np.maximum(union, np.finfo(np.float32).tiny)
    return ious


class SanitizeBoundingBoxes:
    """Clip boxes to the picture and drop those with a side shorter than `min_size` pixels."""

    def __init__(self, *, min_size: float = 1.0) -> None:
        if min_size < 0:
            raise ValueError(f"SanitizeBoundingBoxes: min_size is {min_size}; 0 or more pixels are allowed")
        self.min_size = min_size

    def __call__(self, sample: Sample) -> Sample:
        """The sample without boxes that are too small."""
        return drop_small_boxes(sample, self.min_size)


class RandomHorizontalFlip:
    """Mirror left and right with chance `p`."""

    moves_frame = True

    def __init__(self, *, p: float = 0.5) -> None:
        _check("RandomHorizontalFlip", "p", p, "a probability", 1)
        self.p = p

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps mirrored."""
        if torch.rand(1) >= self.p:
            return sample
        boxes = sample.boxes.copy()
        boxes[:, 0::2] = sample.picture.hw[1] - sample.boxes[:, 2::-2]
        return sample._replace(picture=sample.picture.flip(), boxes=boxes)


def _check_size(name: str, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None or len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name}: size is {size}; (height, width) in pixels is needed")
    return (size[0], size[1])


class Resize:
    """Stretch to `size`, (height, width), bilinear with antialiasing.

    The builder puts eval_spatial_size for None.

    Args:
        keep_ratio: Pad with black, right or at the bottom, first; the experiment's, which scales boxes back.
        size: What every picture is brought to.
    """

    def __init__(self, keep_ratio: bool = False, *, size: tuple[int, int] | None = None) -> None:
        self.size = _check_size("Resize", size)
        self.keep_ratio = keep_ratio

    def __call__(self, sample: Sample) -> Sample:
        """The sample at `size`."""
        frame_hw = framed(sample.picture.hw, self.size)
        if self.keep_ratio and frame_hw != sample.picture.hw:
            sample = sample._replace(picture=sample.picture.zoom_out((0, 0, *frame_hw), 0))
        (h, w), (new_h, new_w) = sample.picture.hw, self.size
        boxes = sample.boxes * _corners(new_w / w, new_h / h)
        return sample._replace(picture=sample.picture.resize(self.size), boxes=boxes)


class PadToSize:
    """Pad on the right and at the bottom to `size`, (height, width), with grey level `fill`.

    The builder puts eval_spatial_size for None.
    """

    moves_frame = True

    def __init__(self, *, size: tuple[int, int] | None = None, fill: int = 0) -> None:
        _check("PadToSize", "fill", fill, "a grey level", 255)
        self.size = _check_size("PadToSize", size)
        self.fill = fill

    def __call__(self, sample: Sample) -> Sample:
        """The sample, padded to `size`; ValueError where it is larger."""
        h, w = sample.picture.hw
        if h > self.size[0] or w > self.size[1]:
            raise ValueError(
                f"PadToSize: a picture of {h}x{w} (height x width) does not fit in "
                f"{self.size[0]}x{self.size[1]}; put a Resize before it"
            )
        return sample._replace(picture=sample.picture.zoom_out((0, 0, *self.size), self.fill))
