"""What guides a student beside its labels: a teacher's tokens, and the likenesses its own ViT began with."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..data import CocoDetection
from ..nn.dfine import SIZE_MULTIPLE
from ..nn.guided import Guided, InitialViT
from ..ops.padding import pad_to_multiple
from ..ops.similarity import cosine_distance, gram_distance
from ..optim.gradient_share import SteeredWeight, gradient_share
from ..structures import GuidedOutput, Targets
from ..teachers.sources import TokenSource, check_pictures
from .stages import MIXED, Stage

logger = logging.getLogger(__name__)


class Aims(NamedTuple):
    """What a step's losses compare the student with.

    Attributes:
        teacher: [B, E, h, w] on the grid of `GuidedOutput.projected`; None without a teacher.
        anchor: [B, D, h, w] like `GuidedOutput.tokens`; None where the ViT does not learn or is not anchored.
    """

    teacher: Tensor | None
    anchor: Tensor | None


class Guidance:
    """Distillation, Gram anchoring, or both.

    Args:
        guided: The student with its projector, where it trains.
        teacher: Gives the tokens that the projected map shall resemble; None without distillation.
        weight: That loss's weight; None without distillation.
        anchor: The ViT as it began; None without Gram anchoring.
        gram_weight: That loss's weight.
    """

    def __init__(
        self,
        guided: Guided,
        *,
        teacher: TokenSource | None = None,
        weight: SteeredWeight | None = None,
        anchor: InitialViT | None = None,
        gram_weight: float = 0.0,
    ) -> None:
        assert (guided.projector is None) == (teacher is None) == (weight is None), "distillation is whole"
        self.guided = guided
        self.teacher = teacher
        self.weight = weight
        self.anchor = anchor
        self.gram_weight = gram_weight
        encoder = guided.student.encoder
        part = list(guided.attended.parameters()) or list(encoder.parameters())
        self._part = {id(parameter) for parameter in part}
        self._notes: dict[str, list[Tensor]] = {}

    def parameter_group(self, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The projector's group for the optimizer; none without distillation."""
        if self.guided.projector is None:
            return []
        named = {f"projector.{name}": p for name, p in self.guided.projector.named_parameters()}
        return [
            {
                "params": list(named.values()),
                "param_names": list(named),
                "lr": lr,
                "initial_lr": lr,
                "weight_decay": weight_decay,
                "name": "distillation: projector",
            }
        ]

    def aims(self, output: GuidedOutput, targets: Targets) -> Aims:
        """Ask the teacher and the anchor; to be called as the student was, under autocast or not."""
        teacher = anchor = None
        if self.teacher is not None and output.projected is not None:
            teacher = self._tokens_of(self.teacher, output.images, targets.image_ids)
            grid = output.projected.shape[-2:]
            if teacher.shape[-2:] != grid:
                teacher = F.interpolate(teacher.float(), size=grid, mode="bilinear", antialias=True)
        if self.anchor is not None and output.tokens is not None and output.tokens.requires_grad:
            anchor = self.anchor(output.vit_images)
        return Aims(teacher, anchor)

    @torch.no_grad()
    def _tokens_of(self, teacher: TokenSource, images: Tensor, image_ids: Sequence[int]) -> Tensor:
        # the teacher sees what the student's map covers, its padding included: the cells are then the same
        padded, extent_hw = pad_to_multiple(images, SIZE_MULTIPLE)
        if teacher.saved is not None and extent_hw != (1.0, 1.0):
            raise ValueError(
                f"distillation.features: pictures of {tuple(images.shape[-2:])} (height, width) are padded, "
                "and saved features know no padding; choose an eval_spatial_size of multiples of "
                f"{SIZE_MULTIPLE} and end the transforms with Resize, or name a teacher instead"
            )
        return teacher(padded, image_ids)

    def losses(self, output: GuidedOutput, aims: Aims) -> dict[str, Tensor]:
        """Weighted losses by name, in float32."""
        found: dict[str, Tensor] = {}
        if aims.teacher is not None and output.projected is not None and self.weight is not None:
            distance = cosine_distance(output.projected, aims.teacher)
            self._note("distill_cosine", distance.detach())
            found["loss_distill"] = self.weight.weight * distance
        if aims.anchor is not None and output.tokens is not None:
            branch = output.tokens.view_as(output.tokens)
            self._watch(branch, output.tokens)
            found["loss_gram"] = self.gram_weight * gram_distance(branch, aims.anchor)
        return found

    def _watch(self, branch: Tensor, tokens: Tensor) -> None:
        """Note in the backward pass how large the gradient from `branch` is, beside all that `tokens` get."""
        norms: list[Tensor] = []

        def note_own(grad: Tensor) -> None:
            norms.append(torch.linalg.vector_norm(grad))

        def note_share(grad: Tensor) -> None:
            self._note("gram_share", norms[0] / torch.linalg.vector_norm(grad))

        branch.register_hook(note_own)  # type: ignore[no-untyped-call, unused-ignore]
        tokens.register_hook(note_share)  # type: ignore[no-untyped-call, unused-ignore]

    def observe(self, parameters: Sequence[nn.Parameter], *, finite: bool) -> None:
        """Look at the step's gradients, averaged over the ranks; only finite ones count for the weight."""
        if self.weight is None:
            return
        part = [p.grad for p in parameters if p.grad is not None and id(p) in self._part]
        rest = [p.grad for p in parameters if p.grad is not None and id(p) not in self._part]
        share = gradient_share(part, rest)
        if finite:
            self.weight.add(share)
        self._note("distill_share", share)
        self._note("distill_weight", torch.full_like(share, self.weight.weight))

    def _note(self, name: str, value: Tensor) -> None:
        self._notes.setdefault(name, []).append(value)

    def notes(self) -> dict[str, Tensor]:
        """What was noted of a step, scalars on the device; the next step begins without."""
        found = {name: torch.stack(values).mean() for name, values in self._notes.items()}
        self._notes.clear()
        return found

    def end_epoch(self) -> None:
        """Choose the weight of the next epoch, the same on every rank; nothing changes a second time."""
        share = self.weight.mean_share() if self.weight is not None else None
        if self.weight is None or share is None:
            return
        found, before = float(distributed.mean_over_ranks(share)), self.weight.weight
        self.weight.end_epoch(found)
        logger.info(
            "distillation: %.2f%% of the gradients were the encoder's attention's under the weight %.4g; "
            "the next weight is %.4g",
            *(100 * found, before, self.weight.weight),
        )
        if self.weight.at_its_most and self.weight.weight > before:
            logger.warning(
                "distillation: the weight is as large as it may become; if the share stays below the aim, "
                "lower distillation.share, or set it to null and choose the weight"
            )

    def restart(self) -> None:
        """The average of the weights starts anew: take the distillation's `restart_weight`, for good."""
        if self.weight is not None:
            self.weight.restart()
            logger.info("distillation: the weight is %.4g from here on", self.weight.weight)

    def check_plan(self, stages: Sequence[Stage], dataset: CocoDetection) -> None:
        """Refuse a training plan in which a part of the guidance would be wrong or do nothing.

        Raises:
            ValueError: Saved features with pictures that are moved or mixed, or not of these pictures; or an
                anchor for a ViT that never learns.
        """
        if self.teacher is not None and self.teacher.saved is not None:
            _check_moves(stages, dataset)
            listed = dataset.annotations
            ids, names = listed.image_ids.tolist(), listed.file_names()
            check_pictures(self.teacher.saved, ids, names, dataset.ann_file)
        if self.anchor is not None and all(stage.backbone == "frozen" for stage in stages):
            raise ValueError(
                "gram_anchoring: no stage lets the ViT learn, so that there is nothing to hold; remove it, "
                "or release blocks (stages: unfreeze_blocks, or freeze_backbone: False)"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; the anchor too, since no file may hold what a run began with."""
        return {
            "projector": self.guided.projector.state_dict() if self.guided.projector is not None else None,
            "weight": self.weight.state_dict() if self.weight is not None else None,
            "anchor": self.anchor.state_dict() if self.anchor is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: It is of a run with another guidance.
        """
        parts: dict[str, Any] = {
            "projector": self.guided.projector,
            "weight": self.weight,
            "anchor": self.anchor,
        }
        other = [name for name, part in parts.items() if (part is None) != (state[name] is None)]
        if other:
            raise ValueError(
                f"its distillation or gram_anchoring is another, of which the {' and '.join(other)} tells"
            )
        if self.guided.projector is not None:
            then, now = len(state["projector"]["bias"]), self.guided.projector.out_features
            if then != now:
                raise ValueError(f"its teacher is {then} wide, this one {now}")
            self.guided.projector.load_state_dict(state["projector"])
        if self.weight is not None:
            self.weight.load_state_dict(state["weight"], next(self.guided.parameters()).device)
        if self.anchor is not None:
            self.anchor.load_state_dict(state["anchor"])


def _check_moves(stages: Sequence[Stage], dataset: CocoDetection) -> None:
    pipeline = dataset.transforms
    strong = any(stage.strong_augmentation for stage in stages)
    moving = [name for name in pipeline.moves_frame if strong or name not in pipeline.strong_ops]
    moving += [name for name in MIXED if any(getattr(stage, name) for stage in stages)]
    moving += ["keep_ratio" for _, op in pipeline.ops if getattr(op, "keep_ratio", False)]
    if moving:
        raise ValueError(
            f"distillation.features: {', '.join(moving)} moves or mixes the pictures, and the saved features "
            "are those of the pictures as they are stored; remove it (from train_dataloader's transforms and "
            "from stages), or name a teacher instead, which sees what the student sees"
        )
