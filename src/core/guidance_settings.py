"""The sections of an experiment that describe what guides training beside the labels."""

from dataclasses import dataclass
from typing import Annotated, Literal

from .bounds import Bounds, NonNegativeFloat, PositiveFloat

OpenFraction = Annotated[float, Bounds(above=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """A frozen DINOv3 ViT that is asked in every step.

    Attributes:
        model_type: Which one; there is no giant DINOv3, `vit_giant2` means ViT-H+/16.
        checkpoint_path: Its weights; without a file timm's hub is asked.
        input_scale: Size of its pictures as a part of the student's. At 0.5 its patches of 16 pixels are the
            cells of the student's stride of 32.
    """

    model_type: Literal["vit_small", "vit_base", "vit_large", "vit_giant2"]
    checkpoint_path: str | None = None
    input_scale: PositiveFloat = 0.5


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """The encoder's coarsest map learns to resemble a teacher's patch tokens (RT-DETRv4).

    Attributes:
        teacher: Who is asked; or without it:
        features: Folder of patch tokens that tools/extract_features.py saved.
        weight: The loss's weight at first.
        restart_weight: Its weight from the stage with `ema_restart_decay` on; `weight` where it is not given.
        share: Share of all gradients that the encoder's attention shall have, to which the weight is steered
            after each epoch; null leaves the weight as it is.
        share_tolerance: How far from it the share may be before the weight changes.
    """

    teacher: TeacherSettings | None = None
    features: str | None = None
    weight: PositiveFloat = 5.0
    restart_weight: PositiveFloat | None = None
    share: OpenFraction | None = 0.11
    share_tolerance: NonNegativeFloat = 0.01


@dataclass(frozen=True, kw_only=True)
class GramSettings:
    """The ViT's patches keep the likenesses to each other that they had at the start (DINOv3).

    Attributes:
        weight: The loss's weight; it counts in stages that let the ViT, or LoRA's factors, learn.
    """

    weight: PositiveFloat
