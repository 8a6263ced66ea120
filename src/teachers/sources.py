"""Where a step gets a teacher's patch tokens from.

Legend: B batch, E the teacher's width, H and W a picture's sides, h and w cells of the teacher's grid.
"""

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from .dinov3_teacher import PATCH, DinoV3Teacher


class TokenSource(Protocol):
    """Gives the tokens that a student's map shall resemble.

    Attributes:
        dim: E.
        needs_whole_pictures: Whether it knows pictures only as they are stored, not cropped or mirrored.
    """

    dim: int
    needs_whole_pictures: bool

    def __call__(self, images: Tensor, image_ids: Sequence[int]) -> Tensor:
        """Patch tokens as maps [B, E, h, w] that cover what the pictures [B, 3, H, W] in [0, 1] cover."""


class OnlineTeacher:
    """A teacher that looks at the student's own pictures.

    Args:
        teacher: Frozen, where the pictures will be.
        scale: Size of its pictures as a part of the student's; each side becomes a multiple of its patch.
    """

    needs_whole_pictures = False

    def __init__(self, teacher: DinoV3Teacher, scale: float) -> None:
        self.teacher = teacher
        self.scale = scale
        self.dim = teacher.get_feature_dims()["patch_tokens"]

    def __call__(self, images: Tensor, image_ids: Sequence[int]) -> Tensor:  # noqa: ARG002 (a saved one's need)
        """As `TokenSource` says."""
        h, w = (max(1, round(side * self.scale / PATCH)) for side in images.shape[-2:])
        size_hw = (PATCH * h, PATCH * w)
        if tuple(images.shape[-2:]) != size_hw:
            images = F.interpolate(images, size=size_hw, mode="bilinear", antialias=True)
        tokens: Tensor = self.teacher(images)["patch_tokens"]
        return tokens.mT.reshape(len(images), self.dim, h, w)
