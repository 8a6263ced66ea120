"""The training plan: what trains and how pictures are prepared, from which epoch to which."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..core import Experiment, StageSettings
from ..data import Chances
from ..optim import set_rates

logger = logging.getLogger(__name__)

Trainable = Literal["frozen", "all"] | int
MIXED = ("mosaic", "mixup", "copyblend")
INHERITED = ("strong_augmentation", *MIXED, "multi_scale", "backbone", "backbone_lr_factor")


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
        mosaic: Chance of a mosaic; with this and the next two, 0 without strong augmentation.
        mixup: Chance of MixUp.
        copyblend: Chance of CopyBlend where there is no MixUp.
    """

    start: int
    end: int
    strong_augmentation: bool = True
    multi_scale: bool = True
    backbone: Trainable = "all"
    backbone_lr_factor: float = 1.0
    ema_restart_decay: float | None = None
    mosaic: float = 0.0
    mixup: float = 0.0
    copyblend: float = 0.0

    @property
    def chances(self) -> Chances:
        """How often pictures are mixed."""
        return Chances(self.mosaic, self.mixup, self.copyblend)


def plan_of(settings: Experiment, model: nn.Module) -> tuple[Stage, ...]:
    """The stages of an experiment, as `plan_stages` makes them for its model's backbone.

    Raises:
        ValueError: As of `plan_stages`, or no stage lets the factors of LoRA learn.
    """
    backbone: Any = model.backbone
    stages = plan_stages(
        settings.stages,
        epochs=settings.epochs,
        num_blocks=getattr(backbone, "num_blocks", 0),
        freeze_backbone=getattr(backbone, "freeze_backbone", False),
        freeze_epochs=getattr(backbone, "freeze_backbone_epochs", 0),
    )
    if getattr(backbone, "has_lora", False) and all(stage.backbone == "frozen" for stage in stages):
        raise ValueError(
            "DINOv3Backbone.lora: its factors would never learn, as the backbone is frozen in every epoch; "
            "remove lora, or let the backbone train (freeze_backbone: False, freeze_backbone_epochs, stages)"
        )
    return stages


def plan_stages(
    settings: Sequence[StageSettings],
    *,
    epochs: int,
    num_blocks: int,
    freeze_backbone: bool = False,
    freeze_epochs: int = 0,
) -> tuple[Stage, ...]:
    """The stages of a run of `epochs` epochs, in order and without gaps.

    A field that a stage does not state is that of the stage before it. `unfreeze_blocks` becomes a stage for
    each block, as far as the next stage's start lets them come. `freeze_backbone` freezes the backbone in
    every stage, `freeze_epochs` in the first epochs, whatever the list says; a stage that the boundary cuts
    becomes two.

    Args:
        settings: The list in the YAML.
        epochs: Length of the run.
        num_blocks: Blocks of the backbone's ViT; 0 for a backbone that always trains as a whole.
        freeze_backbone: DINOv3Backbone's knob.
        freeze_epochs: DINOv3Backbone's `freeze_backbone_epochs`.

    Raises:
        ValueError: Two stages start at the same epoch, the first does not start at 0, or epochs < 1; a stage
            states what excludes each other, or releases what the backbone does not have or what trained in
            the stage before.
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
    frozen_until = epochs if freeze_backbone else min(freeze_epochs, epochs)
    stages: list[Stage] = []
    current = Stage(0, 0)
    for index, (start, end, stated) in enumerate(zip(starts, [*starts[1:], epochs], listed, strict=True)):
        where = f"stages.{index} (start: {stated.start})"
        _check_release(where, stated, num_blocks)
        given = {name: value for name in INHERITED if (value := getattr(stated, name)) is not None}
        current = current._replace(
            **given, start=start, end=min(end, epochs), ema_restart_decay=stated.ema_restart_decay
        )
        if start >= epochs:
            logger.warning("%s never starts: the run has %d epochs", where, epochs)
            continue
        if stated.unfreeze_blocks and start > frozen_until and stages[-1].backbone != "frozen":
            raise ValueError(
                f"{where}: unfreeze_blocks releases a frozen ViT, but in the epoch before it trains "
                f"({_trains(stages[-1])}); write `backbone: frozen` there, or `backbone: N` here"
            )
        stages += _released(current, stated)
        current = stages[-1]
    return tuple(part for stage in stages for part in _freeze_until(_mixed(stage), frozen_until))


def _check_release(where: str, stated: StageSettings, num_blocks: int) -> None:
    """Refuse what no plan can mean, or no ViT of `num_blocks` can do."""
    others = ("unfreeze_every", "unfreeze_lr_factor")
    lonely = [name for name in others if getattr(stated, name) != getattr(StageSettings, name)]
    if stated.unfreeze_blocks is None and lonely:
        raise ValueError(
            f"{where}: {' and '.join(lonely)} without unfreeze_blocks; say how many blocks are released, for "
            "instance `unfreeze_blocks: 4`, or remove it"
        )
    doubled = [name for name in ("backbone", "backbone_lr_factor") if getattr(stated, name) is not None]
    if stated.unfreeze_blocks is not None and doubled:
        raise ValueError(
            f"{where}: unfreeze_blocks says what of the backbone trains, and unfreeze_lr_factor at which "
            f"rate; remove {' and '.join(doubled)}, or write it without unfreeze_blocks"
        )
    wanted = stated.unfreeze_blocks or stated.backbone
    if num_blocks == 0 and wanted not in (None, "all"):
        raise ValueError(
            f"{where}: this backbone always trains as a whole; write `backbone: all`, without unfreeze_blocks"
        )
    if isinstance(wanted, int) and wanted > num_blocks:
        raise ValueError(f"{where}: {wanted} blocks shall train, but the ViT has {num_blocks}; lower it")


def _released(stage: Stage, stated: StageSettings) -> list[Stage]:
    """`stage`, cut where another block is released; blocks that would come after its end never do."""
    parts: list[Stage] = []
    starts = range(stage.start, stage.end, stated.unfreeze_every)[: stated.unfreeze_blocks or 0]
    for blocks, start in enumerate(starts, start=1):
        stage = stage._replace(start=start, backbone=blocks, backbone_lr_factor=stated.unfreeze_lr_factor)
        if parts:
            parts[-1] = parts[-1]._replace(end=start)
            stage = stage._replace(ema_restart_decay=None)
        parts.append(stage)
    return parts or [stage]


def _mixed(stage: Stage) -> Stage:
    """`stage`, which mixes pictures only where it augments strongly."""
    return stage if stage.strong_augmentation else stage._replace(mosaic=0.0, mixup=0.0, copyblend=0.0)


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
        ValueError: As of `backbone_groups`.
    """
    backbone: Any = model.backbone
    if hasattr(backbone, "set_trainable_blocks"):
        named: dict[Trainable, int | None] = {"frozen": 0, "all": None}
        backbone.set_trainable_blocks(named[stage.backbone] if stage.backbone in named else stage.backbone)
    for i in backbone_groups(model, [stage], optimizer):
        schedule.base_lrs[i] = optimizer.param_groups[i]["initial_lr"] * stage.backbone_lr_factor
    set_rates(optimizer, schedule)


def backbone_groups(model: nn.Module, stages: Sequence[Stage], optimizer: Optimizer) -> list[int]:
    """Indices of the parameter groups that are the backbone's alone, whose rates stages change.

    Raises:
        ValueError: There is none, but a stage has a factor for its rate.
    """
    backbone: Any = model.backbone
    owned = {id(p) for p in backbone.parameters()}
    groups = enumerate(optimizer.param_groups)
    alone = [i for i, group in groups if all(id(p) in owned for p in group["params"])]
    slowed = next((stage for stage in stages if stage.backbone_lr_factor != 1), None)
    if slowed and not alone:
        raise ValueError(
            f"stages: backbone_lr_factor (or unfreeze_lr_factor) {slowed.backbone_lr_factor:g} at epoch "
            f"{slowed.start}, but no group in optimizer.params is the backbone's alone; add one: "
            "{params: '^backbone\\.', lr: 1e-5}"
        )
    return alone


def stages_table(stages: Sequence[Stage]) -> str:
    """The plan as text, one line a stage."""
    rows = [("epochs", "augmentation", "multi-scale", "backbone", "lr factor", "EMA restart")]
    for stage in stages:
        rows.append(
            (
                f"{stage.start}-{stage.end - 1}",
                augmentation(stage),
                "yes" if stage.multi_scale else "no",
                _trains(stage),
                f"{stage.backbone_lr_factor:g}",
                "-" if stage.ema_restart_decay is None else f"decay {stage.ema_restart_decay:g}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def augmentation(stage: Stage) -> str:
    """What happens to the pictures, in words."""
    mixed = [f"{name} {chance:g}" for name, chance in zip(MIXED, stage.chances, strict=True) if chance]
    return ", ".join(["strong" if stage.strong_augmentation else "plain", *mixed])


def _trains(stage: Stage) -> str:
    if stage.backbone == 1:
        return "last block"
    return f"last {stage.backbone} blocks" if isinstance(stage.backbone, int) else stage.backbone
