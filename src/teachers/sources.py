"""Where a step gets a teacher's patch tokens from.

Legend: B batch, E the teacher's width, H and W a picture's sides, h and w cells of the teacher's grid.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from .dinov3_teacher import PATCH, DinoV3Teacher
from .feature_store import FeatureStore


class TokenSource(Protocol):
    """Gives the tokens that a student's map shall resemble.

    Attributes:
        dim: E.
    """

    dim: int

    @property
    def saved(self) -> FeatureStore | None:
        """The folder that it reads instead of looking at the pictures; None where it looks."""

    def __call__(self, images: Tensor, image_ids: Sequence[int]) -> Tensor:
        """Patch tokens as maps [B, E, h, w] that cover what the pictures [B, 3, H, W] in [0, 1] cover."""


class OnlineTeacher:
    """A teacher that looks at the student's own pictures.

    Args:
        teacher: Frozen, where the pictures will be.
        scale: Size of its pictures as a part of the student's; each side becomes a multiple of its patch.
    """

    saved = None

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


class SavedTeacher:
    """What a teacher said of the pictures as they are stored, from a folder.

    Args:
        store: It holds patch tokens of each picture, stretched to one size.

    Raises:
        ValueError: There are no patch tokens in it, or their grid covers more than the pictures.
    """

    def __init__(self, store: FeatureStore) -> None:
        kind = store.kind
        if "patch_tokens" not in kind.feature_dims:
            raise ValueError(
                f"distillation.features: {store.folder} holds {', '.join(kind.feature_dims)} and no patch "
                "tokens; run tools/extract_features.py with extract_patch_tokens: True"
            )
        if any(side % PATCH for side in kind.size_hw):
            raise ValueError(
                f"distillation.features: the pictures in {store.folder} had {kind.size_hw} (height, width) "
                f"and were padded; run tools/extract_features.py at multiples of {PATCH}"
            )
        self.saved = store
        self.dim = kind.feature_dims["patch_tokens"]

    def __call__(self, images: Tensor, image_ids: Sequence[int]) -> Tensor:
        """As `TokenSource` says; the pictures lend their device alone."""
        tokens = self.saved.read(image_ids)["patch_tokens"]
        if images.device.type == "cuda":  # from pageable memory the copy would wait for the device's work
            tokens = tokens.pin_memory()
        tokens = tokens.to(images.device, non_blocking=True)
        return tokens.mT.reshape(len(image_ids), self.dim, *self.saved.kind.grid_hw)


def check_pictures(
    store: FeatureStore, image_ids: Sequence[int], file_names: Sequence[str], ann_file: Path
) -> None:
    """Refuse features that are not those of the pictures of a dataset.

    Args:
        store: The features.
        image_ids: Of all pictures of the dataset.
        file_names: Of the same.
        ann_file: What lists them.

    Raises:
        ValueError: A picture has no features, or an id has those of another file.
    """
    named = dict(zip(map(str, image_ids), file_names, strict=True))
    for image_id, name in named.items():
        if (held := store.file_names.get(image_id, name)) != name:
            raise ValueError(
                f"distillation.features: {store.folder} holds {held} as picture {image_id}, which is {name} "
                f"in {ann_file}: they are another dataset's. Run tools/extract_features.py with --ann-file "
                f"{ann_file} and a folder of its own"
            )
    missing = [image_id for image_id in named if image_id not in store.shard_of]
    if missing:
        example = next(iter(store.shard_of), "none")
        raise ValueError(
            f"distillation.features: {store.folder} lacks {len(missing)} of the {len(named)} pictures "
            f"of {ann_file}, {', '.join(missing[:5])} among them; it holds {example} for example. Run "
            f"tools/extract_features.py with --ann-file {ann_file} and the same folder: it adds what is "
            "missing"
        )
