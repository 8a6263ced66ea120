"""A whole experiment, as it was read, checked and completed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .bounds import Count, NaturalNumber, NonNegativeFloat, Size
from .data_settings import LoaderSettings, MixingSettings, MultiScaleSettings
from .guidance_settings import DistillationSettings, GramSettings
from .settings import (
    AmpSettings,
    EmaSettings,
    EvaluatorSettings,
    OptimizerSettings,
    SchedulerSettings,
    StageSettings,
    WarmupSettings,
)

Metric = Literal[
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a run needs to know; each attribute but the last two is a top-level key of the YAML.

    Attributes:
        task: `detection`.
        model: Name of the model's class; a section of that name sets its knobs.
        criterion: Name of the class that computes the losses.
        postprocessor: Name of the class that turns outputs into detections.
        num_classes: Classes of the dataset; counted in `data` where it is given and this is not.
        data: Folder of a dataset, or its data.yaml or JSON: COCO, Roboflow, YOLO or Pascal VOC. It stands in
            for the loaders' `img_folder` and `ann_file`. Relative to the working directory.
        eval_spatial_size: (height, width) of the network's input, the base of multi-scale training too.
        keep_ratio: Whether pictures are padded to the shape of `eval_spatial_size` before they are resized to
            it, so that nothing is distorted; otherwise they are stretched.
        output_dir: Folder for checkpoints and logs; `./output/<name of the file>` where it is not given.
        summary_dir: Folder for TensorBoard's files; `<output_dir>/summary` where it is not given.
        seed: Seed of every random generator; without it each run differs.
        device: torch's name of a device; the best one there is where it is not given.
        epochs: Passes over the training set.
        stages: The training plan; without it one stage from epoch 0.
        optimizer: The optimizer and its groups.
        lr_scheduler: How the learning rate falls.
        lr_warmup_scheduler: How it rises at first; without it, it starts at its full height.
        use_amp: Whether to train in mixed precision.
        amp: How, if so.
        compile: Whether `torch.compile` compiles the backbone for training: one graph for all sizes. The
            first step of each stage (under `O2`, of each epoch) waits for it.
        use_ema: Whether to keep and evaluate a moving average of the weights.
        ema: How, if so.
        clip_max_norm: Largest norm of all gradients together; 0 never clips.
        accumulate_steps: Batches whose gradients are added before a step of the optimizer.
        sync_bn: Whether BatchNorm takes its statistics over all processes.
        print_freq: Steps between two lines in the logs.
        checkpoint_freq: Epochs between two checkpoints.
        checkpoint_step_freq: Optimizer steps between two checkpoints inside an epoch; 0 makes none there.
        checkpoint_keep: Newest checkpoints that are kept: `last.pth`, `last.1.pth`, ...
        eval_every: Epochs between two evaluations.
        best_metric: COCO's number that decides which checkpoint is the best.
        patience: Evaluations in a row without a new best after which the run ends; without it none ends it.
        max_bad_steps: Steps in a row with losses or gradients that are not finite after which the run stops.
        multi_scale: Training at changing sizes; without it always at `eval_spatial_size`.
        distillation: What the encoder learns from a teacher; without it nothing.
        gram_anchoring: How the ViT is held to what it was; without it, it is not.
        mixing: How pictures are mixed in the stages that say so.
        evaluator: How detections are judged.
        train_dataloader: The pictures to train on.
        val_dataloader: The pictures to evaluate on.
        components: Keyword arguments of each class in use, by the class's name in the YAML.
        wiring: Which component fills a positional parameter: `{"DFINE": {"backbone": "HGNetv2", ...}, ...}`.
    """

    task: Literal["detection"] = "detection"
    model: str
    criterion: str
    postprocessor: str
    num_classes: Count
    data: str | None = None
    eval_spatial_size: tuple[Size, Size] = (640, 640)
    keep_ratio: bool = False
    output_dir: str = "./output"
    summary_dir: str | None = None
    seed: int | None = None
    device: str | None = None
    epochs: Count
    stages: tuple[StageSettings, ...] = ()
    optimizer: OptimizerSettings
    lr_scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    lr_warmup_scheduler: WarmupSettings | None = None
    use_amp: bool = False
    amp: AmpSettings = field(default_factory=AmpSettings)
    compile: bool = False
    use_ema: bool = True
    ema: EmaSettings = field(default_factory=EmaSettings)
    clip_max_norm: NonNegativeFloat = 0.1
    accumulate_steps: Count = 1
    sync_bn: bool = True
    print_freq: Count = 100
    checkpoint_freq: Count = 1
    checkpoint_step_freq: NaturalNumber = 1000
    checkpoint_keep: Count = 3
    eval_every: Count = 1
    best_metric: Metric = "AP"
    patience: Count | None = None
    max_bad_steps: Count = 20
    multi_scale: MultiScaleSettings | None = None
    distillation: DistillationSettings | None = None
    gram_anchoring: GramSettings | None = None
    mixing: MixingSettings = field(default_factory=MixingSettings)
    evaluator: EvaluatorSettings = field(default_factory=EvaluatorSettings)
    train_dataloader: LoaderSettings
    val_dataloader: LoaderSettings
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    wiring: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
