"""From the settings of an experiment to the guidance that they describe."""

from pathlib import Path

import torch

from ..core import Experiment
from ..core.guidance_settings import DistillationSettings
from ..nn.backbone import DINOv3Backbone
from ..nn.dfine import DFINE
from ..nn.guided import Guided, InitialViT
from ..optim.gradient_share import SteeredWeight
from ..teachers import FeatureStore, build_teacher
from ..teachers.sources import OnlineTeacher, SavedTeacher, TokenSource
from .guidance import Guidance


def build_guidance(settings: Experiment, model: DFINE, device: torch.device) -> Guidance | None:
    """A teacher, an anchor, or both for `model`; None where neither is asked for.

    To be called when the model has the weights that it starts with: its ViT's are the anchor.

    Raises:
        ValueError: The teacher's weights or saved features cannot be had; or there is no ViT to be anchored,
            or `compile` would hide its tokens.
    """
    distillation, gram = settings.distillation, settings.gram_anchoring
    if distillation is None and gram is None:
        return None
    backbone, anchor = model.backbone, None
    if gram is not None:
        check_anchored(settings, backbone)
        assert isinstance(backbone, DINOv3Backbone), "it was checked"
        anchor = InitialViT(backbone).to(device)
    teacher = _token_source(distillation, device) if distillation is not None else None
    guided = Guided(model, teacher.dim if teacher is not None else None, anchored=anchor is not None)
    return Guidance(
        guided.to(device),
        teacher=teacher,
        weight=_steered_weight(distillation) if distillation is not None else None,
        anchor=anchor,
        gram_weight=gram.weight if gram is not None else 0.0,
    )


def check_anchored(settings: Experiment, backbone: object) -> None:
    """See that Gram anchoring, where it is asked for, can be had.

    Raises:
        ValueError: The backbone has no ViT to be anchored, or `compile` would hide its tokens.
    """
    if settings.gram_anchoring is None:
        return
    if not isinstance(backbone, DINOv3Backbone):
        raise ValueError(
            f"gram_anchoring holds the ViT of a DINOv3Backbone, and the backbone is a "
            f"{type(backbone).__name__}; remove gram_anchoring"
        )
    if settings.compile:
        raise ValueError(
            "gram_anchoring reads tokens inside the backbone, which `compile: True` makes one graph; "
            "set compile to False or remove gram_anchoring"
        )


def _token_source(settings: DistillationSettings, device: torch.device) -> TokenSource:
    if settings.teacher is None:
        assert settings.features is not None, "one of the two is there"
        return SavedTeacher(FeatureStore.open(Path(settings.features)))
    asked = settings.teacher
    teacher = build_teacher(
        {
            "model_type": asked.model_type,
            "checkpoint_path": asked.checkpoint_path,
            "extract_cls_token": False,
        }
    )
    return OnlineTeacher(teacher.to(device), asked.input_scale)


def _steered_weight(settings: DistillationSettings) -> SteeredWeight:
    return SteeredWeight(
        settings.weight,
        restart_weight=settings.restart_weight,
        aim=settings.share,
        tolerance=settings.share_tolerance,
    )
