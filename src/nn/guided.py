"""A detector that lets a guide look at what it makes on its way: for distillation and Gram anchoring.

Legend: B batch, C width of the encoder, E of the teacher, D of the ViT, h and w cells of the coarsest level.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..structures import GuidedOutput, Targets
from .backbone import DINOv3Backbone
from .backbone.lora import leave_out_factors
from .backbone.vit import extract_maps
from .dfine import DFINE
from .encoder import HybridEncoder

Calls = list[tuple[Any, Any]]
"""Arguments and result of each call of a module."""


class Guided(nn.Module):
    """The student with its projector: what a step calls, and DDP wraps, in place of the student alone.

    The student's own tensors and their names are untouched: what is saved, averaged and exported is the
    student, and the projector belongs to the run.

    Args:
        student: The detector; its encoder is a HybridEncoder.
        teacher_dim: E, the width of the projector; None for no teacher.
        anchored: Whether `forward` gives the ViT's tokens too; its backbone is then a DINOv3Backbone.
    """

    def __init__(self, student: DFINE, teacher_dim: int | None, *, anchored: bool) -> None:
        super().__init__()
        assert isinstance(student.encoder, HybridEncoder), "only the hybrid encoder's maps are known here"
        assert not anchored or isinstance(student.backbone, DINOv3Backbone), "only its tokens are known here"
        self.student = student
        self.anchored = anchored
        width = student.encoder.levels[-1].channels
        self.projector = nn.Linear(width, teacher_dim) if teacher_dim is not None else None

    @property
    def backbone(self) -> nn.Module:
        """The student's."""
        return self.student.backbone

    @property
    def attended(self) -> nn.Module:
        """Whose output is projected: the self-attention on the coarsest level that has it, or the encoder."""
        encoder = cast(HybridEncoder, self.student.encoder)
        levels = encoder.use_encoder_idx
        return encoder.encoder[levels.index(max(levels))] if levels else encoder

    def forward(self, images: Tensor, targets: Targets | None = None) -> GuidedOutput:
        """As of the student, with what a guide needs."""
        watched = self.attended if self.projector is not None else None
        adapter = cast(DINOv3Backbone, self.student.backbone).sta if self.anchored else None
        with _calls_of(watched) as encoded, _calls_of(adapter) as adapted:
            detected = self.student(images, targets)
        projected = tokens = vit_images = None
        if self.projector is not None:
            _, result = encoded[0]
            feature = result if isinstance(result, Tensor) else result[-1]
            # [B, C, h, w] -> [B, h, w, C] -> [B, E, h, w]
            projected = self.projector(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if adapter is not None:
            (taps, vit_images), _ = adapted[0]
            tokens = taps[-1]
        return GuidedOutput(detected, images, projected, tokens, vit_images)


@contextmanager
def _calls_of(module: nn.Module | None) -> Iterator[Calls]:
    """Inside, what `module` is called with and gives; a hook, so that the module need not know of it."""
    calls: Calls = []
    if module is None:
        yield calls
        return
    handle = module.register_forward_hook(lambda _, given, made: calls.append((given, made)))
    try:
        yield calls
    finally:
        handle.remove()


class InitialViT(nn.Module):
    """A backbone's ViT as it is now, without LoRA's factors: it never learns, and is never in training mode.

    Args:
        backbone: Its weights are copied.
    """

    def __init__(self, backbone: DINOv3Backbone) -> None:
        super().__init__()
        self.taps, self.window = backbone.taps, backbone.window
        self.vit = copy.deepcopy(backbone.vit)
        if backbone.has_lora:
            leave_out_factors(self.vit)
        self.vit.set_grad_checkpointing(False)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, vit_images: Tensor) -> Tensor:
        """The patch tokens [B, D, h, w] after the deepest tap and the final norm.

        Args:
            vit_images: [B, 3, 16h, 16w], normalised; h and w even.
        """
        return extract_maps(self.vit, vit_images, self.taps, self.window)[-1]
