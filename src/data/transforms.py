"""What may happen to a picture and its boxes, under the names that D-FINE's YAML files use.

The work is torchvision's (`transforms.v2`); here are the knobs, their checks, and what has to hold for
detection. Every transform takes and gives a `Sample`; random draws come from torch's global CPU generator.
"""

from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class Sample(NamedTuple):
    """A picture on its way through the transforms.

    Attributes:
        image: Pillow RGB, or uint8 [3, H, W].
        boxes: [N, 4] corners in pixels of `image`.
        labels: [N] int64.
    """

    image: Image.Image | tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor


def as_tensor_image(sample: Sample) -> Sample:
    """The same sample with its picture as a uint8 tensor, which resizes and pads faster than Pillow's."""
    if isinstance(sample.image, Image.Image):
        return sample._replace(image=F.to_image(sample.image))
    return sample


def drop_small_boxes(sample: Sample, min_size: float) -> Sample:
    """Clip boxes to the picture, and drop those with a side shorter than `min_size` pixels (or empty)."""
    clipped = F.clamp_bounding_boxes(sample.boxes)
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = ((sides >= min_size) & (sides > 0)).all(-1)
    boxes = tv_tensors.wrap(clipped[kept], like=sample.boxes)
    return sample._replace(boxes=boxes, labels=sample.labels[kept])


def _apply(transform: v2.Transform, sample: Sample) -> Sample:
    image, boxes = transform(sample.image, sample.boxes)
    return sample._replace(image=image, boxes=boxes)


def _check_prob(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is {p}; a probability from 0 to 1 is allowed")


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
        _check_prob("RandomPhotometricDistort", p)
        self.transform = v2.RandomPhotometricDistort(
            brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=p
        )

    def __call__(self, sample: Sample) -> Sample:
        """The sample with other colours."""
        return _apply(self.transform, sample)


class RandomZoomOut:
    """With chance `p`, lay the picture on a canvas of `side_range` times its sides, of grey level `fill`."""

    moves_frame = True

    def __init__(
        self, *, fill: int = 0, side_range: tuple[float, float] = (1.0, 4.0), p: float = 0.5
    ) -> None:
        _check_prob("RandomZoomOut", p)
        self.transform = v2.RandomZoomOut(fill=fill, side_range=side_range, p=p)

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps on a larger canvas."""
        return _apply(self.transform, as_tensor_image(sample))


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
        _check_prob("RandomIoUCrop", p)
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
        drawn = self._draw(sample.boxes.as_subclass(torch.Tensor), sample.boxes.canvas_size)
        if drawn is None:
            return sample
        (left, top, right, bottom), kept = drawn
        frame = (top, left, bottom - top, right - left)
        boxes = F.crop(sample.boxes, *frame)
        return Sample(
            F.crop(as_tensor_image(sample).image, *frame),
            tv_tensors.wrap(boxes[kept], like=boxes),
            sample.labels[kept],
        )

    def _draw(self, boxes: Tensor, canvas_hw: tuple[int, int]) -> tuple[list[int], Tensor] | None:
        """A crop's corners and which boxes [N] have their centre in it; None to leave the picture as it is.

        The distribution is that of torchvision's transform of this name; all trials of one overlap are drawn
        at once (T trials), which takes a tenth of the time.
        """
        sides = torch.tensor([canvas_hw[1], canvas_hw[0]])
        centres = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        low, high = self.scales
        while True:
            min_iou = self.options[int(torch.randint(len(self.options), (1,)))]
            if min_iou >= 1:
                return None
            sizes = (sides * (low + (high - low) * torch.rand(self.trials, 2))).long()
            corners = ((sides - sizes) * torch.rand(self.trials, 2)).long()
            crops = torch.cat((corners, corners + sizes), 1)
            ratios = sizes[:, 0] / sizes[:, 1].clamp(min=1)
            inside = ((crops[:, None, :2] < centres) & (centres < crops[:, None, 2:])).all(-1)  # [T, N]
            overlaps = (box_iou(crops.to(boxes.dtype), boxes) * inside).amax(1)
            allowed = (ratios >= self.aspect_ratios[0]) & (ratios <= self.aspect_ratios[1])
            allowed &= (sizes > 0).all(1) & inside.any(1) & (overlaps >= min_iou)
            if allowed.any():
                first = int(allowed.int().argmax())
                return crops[first].tolist(), inside[first]


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
        _check_prob("RandomHorizontalFlip", p)
        self.transform = v2.RandomHorizontalFlip(p=p)

    def __call__(self, sample: Sample) -> Sample:
        """The sample, perhaps mirrored."""
        return _apply(self.transform, sample)


def _check_size(name: str, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None or len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name}: size is {size}; (height, width) in pixels is needed")
    return (size[0], size[1])


class Resize:
    """Stretch to `size`, (height, width), bilinear with antialiasing.

    The builder puts eval_spatial_size for None.
    """

    def __init__(self, *, size: tuple[int, int] | None = None) -> None:
        self.size = _check_size("Resize", size)
        self.transform = v2.Resize(self.size, antialias=True)

    def __call__(self, sample: Sample) -> Sample:
        """The sample at `size`."""
        return _apply(self.transform, as_tensor_image(sample))


class PadToSize:
    """Pad on the right and at the bottom to `size`, (height, width), with grey level `fill`.

    The builder puts eval_spatial_size for None.
    """

    moves_frame = True

    def __init__(self, *, size: tuple[int, int] | None = None, fill: int = 0) -> None:
        self.size = _check_size("PadToSize", size)
        self.fill = fill

    def __call__(self, sample: Sample) -> Sample:
        """The sample, padded to `size`; ValueError where it is larger."""
        sample = as_tensor_image(sample)
        h, w = sample.boxes.canvas_size
        if h > self.size[0] or w > self.size[1]:
            raise ValueError(
                f"PadToSize: a picture of {h}x{w} (height x width) does not fit in "
                f"{self.size[0]}x{self.size[1]}; put a Resize before it"
            )
        transform = v2.Pad([0, 0, self.size[1] - w, self.size[0] - h], fill=self.fill)
        return _apply(transform, sample)


class ConvertPILImage:
    """From a Pillow picture to a tensor.

    It stays uint8, a quarter of the bytes, until it is on the device, where it becomes float32 in [0, 1]: so
    nothing else can be asked for here.
    """

    def __init__(self, *, dtype: str = "float32", scale: bool = True) -> None:
        if dtype != "float32" or not scale:
            raise ValueError(
                f"ConvertPILImage: dtype '{dtype}', scale {scale} is not offered: the model takes float32 in "
                "[0, 1] (dtype: float32, scale: True)"
            )

    def __call__(self, sample: Sample) -> Sample:
        """The sample with a tensor as its picture."""
        return as_tensor_image(sample)


class Normalize:
    """States the mean and standard deviation, in units of [0, 1], that the backbone was trained with.

    The model normalises, on the device, by its backbone's own numbers; `Pipeline.normalize` lets them be
    compared.
    """

    def __init__(self, *, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"Normalize: three means and three positive deviations are needed, got {mean}, {std}"
            )
        self.mean = mean
        self.std = std

    def __call__(self, sample: Sample) -> Sample:
        """The sample as it is."""
        return sample


class ConvertBoxes:
    """States the boxes' format after batching: centre, width and height in [0, 1], the only one there is."""

    def __init__(self, *, fmt: str = "cxcywh", normalize: bool = True) -> None:
        if fmt != "cxcywh" or not normalize:
            raise ValueError(
                f"ConvertBoxes: fmt '{fmt}', normalize {normalize} is not offered: the model takes "
                "fmt: cxcywh, normalize: True"
            )

    def __call__(self, sample: Sample) -> Sample:
        """The sample as it is."""
        return sample
