"""The training plan: what trains and how pictures are prepared, from which epoch to which."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..core import StageSettings

Trainable = Literal["frozen", "all"] | int


class Stage(NamedTuple):
    """One stretch of epochs under one set of rules.

    Attributes:
        start: First epoch of the stage.
        end: The epoch after its last.
        strong_augmentation: Whether the transforms named in `policy.ops` run.
        multi_scale: Whether the input size is drawn anew each step.
        backbone: "frozen", "all", or the number of last ViT blocks that train.
        backbone_lr_factor: Multiplies the learning rate of the backbone's groups.
        ema_restart_decay: Where given, the stage starts from the best weights so far and the average starts
            anew with this decay.
    """

    start: int
    end: int
    strong_augmentation: bool = True
    multi_scale: bool = True
    backbone: Trainable = "all"
    backbone_lr_factor: float = 1.0
    ema_restart_decay: float | None = None


def plan_stages(
    settings: Sequence[StageSettings], *, epochs: int, freeze_backbone: bool = False, freeze_epochs: int = 0
) -> tuple[Stage, ...]:
    """The stages of a run of `epochs` epochs, in order and without gaps.

    A field that a stage does not state is that of the stage before it. `freeze_backbone` freezes the backbone
    in every stage, `freeze_epochs` in the first epochs, whatever the list says; a stage that the boundary
    cuts becomes two.

    Raises:
        ValueError: Two stages start at the same epoch, the first does not start at 0, or epochs < 1.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; a run needs at least 1")
    listed = list(settings) or [StageSettings(start=0)]
    starts = [s.start if s.start >= 0 else epochs + s.start for s in listed]
    if starts[0] != 0 or any(a >= b for a, b in zip(starts, starts[1:], strict=False)):
        raise ValueError(
            f"stages start at epochs {starts} of {epochs}; they must start at 0 and ascend "
            "(a negative start counts from the end of the run)"
        )
    stages: list[Stage] = []
    current = Stage(0, 0)
    for start, end, stated in zip(starts, [*starts[1:], epochs], listed, strict=True):
        given = {
            field: value
            for field in ("strong_augmentation", "multi_scale", "backbone", "backbone_lr_factor")
            if (value := getattr(stated, field)) is not None
        }
        current = current._replace(
            **given, start=start, end=min(end, epochs), ema_restart_decay=stated.ema_restart_decay
        )
        if start < epochs:
            stages.append(current)
    frozen_until = epochs if freeze_backbone else min(freeze_epochs, epochs)
    return tuple(part for stage in stages for part in _freeze_until(stage, frozen_until))


def _freeze_until(stage: Stage, epoch: int) -> list[Stage]:
    """`stage` with its backbone frozen before `epoch`: one stage, or two where the boundary cuts it."""
    if stage.start >= epoch:
        return [stage]
    frozen = stage._replace(backbone="frozen", end=min(stage.end, epoch))
    if stage.end <= epoch or stage.backbone == "frozen":
        return [frozen._replace(end=stage.end)]
    return [frozen, stage._replace(start=epoch, ema_restart_decay=None)]


def release_backbone(model: nn.Module, stage: Stage, optimizer: Optimizer, schedule: LambdaLR) -> None:
    """Let of the backbone train what the stage says, at the rate that it says.

    Raises:
        ValueError: The backbone cannot be released in parts, or `backbone_lr_factor` meets no parameter group
            that is the backbone's alone.
    """
    backbone: Any = model.backbone
    if hasattr(backbone, "set_trainable_blocks"):
        named: dict[Trainable, int | None] = {"frozen": 0, "all": None}
        backbone.set_trainable_blocks(named[stage.backbone] if stage.backbone in named else stage.backbone)
    elif stage.backbone != "all":
        raise ValueError(
            f"stages: backbone: {stage.backbone} at epoch {stage.start}, but {type(backbone).__name__} "
            "cannot be released in stages; write `backbone: all`"
        )
    owned = {id(p) for p in backbone.parameters()}
    groups = optimizer.param_groups
    alone = [i for i, group in enumerate(groups) if all(id(p) in owned for p in group["params"])]
    if stage.backbone_lr_factor != 1 and not alone:
        raise ValueError(
            f"stages: backbone_lr_factor: {stage.backbone_lr_factor} at epoch {stage.start}, but no group in "
            "optimizer.params is the backbone's alone; add one: {params: '^backbone\\.', lr: 1e-5}"
        )
    for i in alone:
        schedule.base_lrs[i] = groups[i]["initial_lr"] * stage.backbone_lr_factor
        groups[i]["lr"] = schedule.base_lrs[i] * schedule.lr_lambdas[i](schedule.last_epoch)


def stages_table(stages: Sequence[Stage]) -> str:
    """The plan as text, one line a stage."""
    rows = [("epochs", "augmentation", "multi-scale", "backbone", "lr factor", "EMA restart")]
    for stage in stages:
        backbone = f"last {stage.backbone} blocks" if isinstance(stage.backbone, int) else stage.backbone
        rows.append(
            (
                f"{stage.start}-{stage.end - 1}",
                "strong" if stage.strong_augmentation else "plain",
                "yes" if stage.multi_scale else "no",
                backbone,
                f"{stage.backbone_lr_factor:g}",
                "-" if stage.ema_restart_decay is None else f"decay {stage.ema_restart_decay:g}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
