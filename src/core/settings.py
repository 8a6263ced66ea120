"""The sections of an experiment that describe optimisation, evaluation and the plan of training."""

from dataclasses import dataclass
from typing import Literal

from .bounds import Count, Fraction, NaturalNumber, NonNegativeFloat, PositiveFloat, ProperFraction


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """One stage of the training plan; a field that is not given is that of the stage before.

    Attributes:
        start: First epoch of the stage; a negative number counts from the end of the run.
        strong_augmentation: Whether the transforms named in `policy.ops` run; without it no pictures are
            mixed either.
        mosaic: Chance that a picture is a mosaic of four.
        mixup: Chance that a picture is blended with another one.
        copyblend: Chance that, if not, objects of another picture are blended in.
        multi_scale: Whether the input size changes from batch to batch.
        backbone: `all` of it trains, it is `frozen`, or the number of last ViT blocks that train.
        backbone_lr_factor: Multiplies the learning rate of the backbone's parameter groups.
        ema_restart_decay: Restart the weight average from the best weights with this decay as the stage
            starts. Not inherited.
        unfreeze_blocks: Release this many last ViT blocks one after another, the first as the stage starts;
            instead of `backbone`. Not inherited.
        unfreeze_every: Epochs between two releases.
        unfreeze_lr_factor: `backbone_lr_factor` of released blocks.
    """

    start: int
    strong_augmentation: bool | None = None
    mosaic: Fraction | None = None
    mixup: Fraction | None = None
    copyblend: Fraction | None = None
    multi_scale: bool | None = None
    backbone: Literal["frozen", "all"] | Count | None = None
    backbone_lr_factor: NonNegativeFloat | None = None
    ema_restart_decay: ProperFraction | None = None
    unfreeze_blocks: Count | None = None
    unfreeze_every: Count = 1
    unfreeze_lr_factor: NonNegativeFloat = 0.1


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """A group of parameters with a learning rate or weight decay of its own.

    Attributes:
        params: Regular expression; `re.search` must find it in the parameter's name.
        lr: Learning rate of the group; the optimizer's where it is not given.
        weight_decay: Weight decay of the group; the optimizer's where it is not given.
    """

    params: str
    lr: PositiveFloat | None = None
    weight_decay: NonNegativeFloat | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer.

    Attributes:
        type: `AdamW`.
        lr: Learning rate of what no rule names.
        betas: AdamW's two betas.
        weight_decay: Weight decay of what no rule names.
        params: Groups with rates of their own.
        layer_decay: Multiplies the learning rate of a ViT's layer once for each layer above it; 1 has none.
    """

    type: Literal["AdamW"] = "AdamW"
    lr: PositiveFloat
    betas: tuple[ProperFraction, ProperFraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 1e-4
    params: tuple[GroupRule, ...] = ()
    layer_decay: Fraction = 1.0


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """How the learning rate falls over the run.

    Attributes:
        type: `MultiStepLR` (times gamma at each milestone), `CosineLR` (a half cosine over the run, down to
            gamma times the start), `FlatCosineLR` (constant, half a cosine down to gamma, constant).
        milestones: Epochs at which MultiStepLR acts; a milestone past the last epoch never does.
        gamma: Factor of a milestone, or the share of the learning rate that the cosine ends at.
        flat_epochs: Epochs before FlatCosineLR's cosine; half of the run where it is not given.
        no_aug_epochs: Epochs after FlatCosineLR's cosine, at the end of the run.
    """

    type: Literal["MultiStepLR", "CosineLR", "FlatCosineLR"] = "MultiStepLR"
    milestones: tuple[Count, ...] = ()
    gamma: Fraction = 0.1
    flat_epochs: NaturalNumber | None = None
    no_aug_epochs: NaturalNumber = 0


@dataclass(frozen=True, kw_only=True)
class WarmupSettings:
    """How the learning rate rises at the start of the run.

    Attributes:
        type: `LinearWarmup` or `QuadraticWarmup`, from 0 up to the full rate.
        warmup_duration: Optimizer steps that it takes; 0 has no warm-up.
    """

    type: Literal["LinearWarmup", "QuadraticWarmup"] = "LinearWarmup"
    warmup_duration: NaturalNumber


@dataclass(frozen=True, kw_only=True)
class AmpSettings:
    """Mixed precision, where `use_amp` is on.

    Attributes:
        dtype: `auto` takes bfloat16 where the device has it, else float16 with loss scaling.
        opt_level: `O1` keeps weights in float32 and casts what is computed; `O2` computes with weights in
            bfloat16, of which the optimizer keeps float32 masters.
    """

    dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    opt_level: Literal["O1", "O2"] = "O1"


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """The moving average of the weights, where `use_ema` is on.

    Attributes:
        type: `ModelEMA`.
        decay: Share of the old average that a step keeps, once warm.
        warmups: Steps t of the warm-up: the decay is `decay * (1 - exp(-step / t))`; 0 has none.
    """

    type: Literal["ModelEMA"] = "ModelEMA"
    decay: ProperFraction = 0.9999
    warmups: NaturalNumber = 1000


@dataclass(frozen=True, kw_only=True)
class EvaluatorSettings:
    """How detections are judged.

    Attributes:
        type: `CocoEvaluator`: COCO's measure.
        backend: What computes it: arrays of our own, by far the fastest, or a library; the numbers are equal.
    """

    type: Literal["CocoEvaluator"] = "CocoEvaluator"
    backend: Literal["numpy", "faster_coco_eval", "pycocotools"] = "numpy"
