"""A chain of transforms, of which some can be switched off from outside."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ..structures import Target
from . import transforms as t
from .affine import RandomAffine, RandomVerticalFlip
from .picture import Picture
from .statements import ConvertBoxes, ConvertPILImage, Normalize
from .transforms import Sample


class Transform(Protocol):
    """One step of a pipeline."""

    def __call__(self, sample: Sample) -> Sample:
        """The sample, changed."""
        ...


TRANSFORMS: dict[str, type[Transform]] = {
    "RandomPhotometricDistort": t.RandomPhotometricDistort,
    "RandomZoomOut": t.RandomZoomOut,
    "RandomIoUCrop": t.RandomIoUCrop,
    "SanitizeBoundingBoxes": t.SanitizeBoundingBoxes,
    "RandomHorizontalFlip": t.RandomHorizontalFlip,
    "RandomVerticalFlip": RandomVerticalFlip,
    "RandomAffine": RandomAffine,
    "Resize": t.Resize,
    "PadToSize": t.PadToSize,
    "ConvertPILImage": ConvertPILImage,
    "Normalize": Normalize,
    "ConvertBoxes": ConvertBoxes,
}


class Pipeline:
    """The transforms of a dataset, in order.

    Attributes:
        ops: (name, transform) pairs.
        strong_ops: Names of the transforms that run only with strong augmentation.
    """

    def __init__(self, ops: Sequence[tuple[str, Transform]], strong_ops: Sequence[str] = ()) -> None:
        absent = [name for name in strong_ops if name not in {op_name for op_name, _ in ops}]
        if absent:
            raise ValueError(
                f"policy.ops names {', '.join(absent)}, but the transforms are "
                f"{', '.join(name for name, _ in ops) or 'none'}: it would switch nothing; correct one of "
                "the two"
            )
        self.ops = tuple(ops)
        self.strong_ops = frozenset(strong_ops)

    @property
    def normalize(self) -> Normalize | None:
        """The normalisation that the pipeline states, for comparing with the model's."""
        return next((op for _, op in self.ops if isinstance(op, Normalize)), None)

    @property
    def moves_frame(self) -> tuple[str, ...]:
        """Names of the transforms after which relative positions are not those of the stored picture."""
        return tuple(name for name, op in self.ops if getattr(op, "moves_frame", False))

    def __call__(
        self, image: Image.Image | Tensor, target: Target, *, strong: bool, keep_frame: bool = False
    ) -> tuple[Tensor, Target]:
        """Transform one picture.

        Args:
            image: RGB, or its pixels, uint8 [h, w, 3].
            target: Its objects.
            strong: Whether the transforms named in `strong_ops` run.
            keep_frame: Whether those of them that move the frame are left out all the same.

        Returns:
            uint8 [3, H, W], the channels innermost in memory (as decoders give them), and the objects that
            are left, in its pixels, inside it and not empty.
        """
        pixels = image if isinstance(image, Tensor) else pil_to_tensor(image).permute(1, 2, 0)
        sample = Sample(Picture.of(pixels), target.boxes_xyxy_px.numpy(), target.labels.numpy())
        left_out = self.strong_ops
        if strong:
            left_out = left_out.intersection(self.moves_frame if keep_frame else ())
        for name, op in self.ops:
            if name not in left_out:
                sample = op(sample)
        sample = t.drop_small_boxes(sample, 0.0)
        boxes, labels = torch.from_numpy(sample.boxes), torch.from_numpy(sample.labels)
        pixels = sample.picture.render().permute(2, 0, 1)
        return pixels, target._replace(boxes_xyxy_px=boxes, labels=labels)


def build_pipeline(
    ops: Sequence[tuple[str, Mapping[str, Any]]],
    strong_ops: Sequence[str],
    size_hw: tuple[int, int],
    *,
    keep_ratio: bool = False,
) -> Pipeline:
    """Make a pipeline from what the configuration says.

    Args:
        ops: Name and knobs of each transform, in order.
        strong_ops: Names of the transforms that a stage can switch off.
        size_hw: Size for a Resize or PadToSize that states none.
        keep_ratio: Whether a Resize pads first, to the shape of its size.

    Raises:
        ValueError: An unknown name, or a knob's value that is not allowed.
    """
    built = [(name, _build(name, knobs, size_hw, keep_ratio)) for name, knobs in ops]
    return Pipeline(built, strong_ops)


def _build(name: str, knobs: Mapping[str, Any], size_hw: tuple[int, int], keep_ratio: bool) -> Transform:
    if name not in TRANSFORMS:
        nearest = difflib.get_close_matches(name, TRANSFORMS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"transform '{name}' is not known; did you mean {nearest}? There are {', '.join(TRANSFORMS)}"
        )
    kind = TRANSFORMS[name]
    if kind in (t.Resize, t.PadToSize) and knobs.get("size") is None:
        knobs = {**knobs, "size": size_hw}
    return t.Resize(keep_ratio, **knobs) if kind is t.Resize else kind(**knobs)
