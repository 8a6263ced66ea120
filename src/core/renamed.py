"""Keys of upstream's YAML that have another name or another home here."""

from fnmatch import fnmatchcase

# Dotted path (with `*` for any characters) -> what to write instead.
RENAMED = {
    "epoches": "write `epochs`",
    "use_focal_loss": "delete it; the losses are those of DFINECriterion",
    "find_unused_parameters": "delete it; every parameter that trains is used",
    "scaler": "write `amp: {dtype: float16}`; float16 is scaled by itself",
    "remap_mscoco_category": "delete it; category ids are made contiguous from the annotation file",
    "flat_epoch": "write `lr_scheduler: {type: FlatCosineLR, flat_epochs: ...}`",
    "no_aug_epoch": "write `lr_scheduler: {type: FlatCosineLR, no_aug_epochs: ...}`",
    "warmup_iter": "write `lr_warmup_scheduler: {type: QuadraticWarmup, warmup_duration: ...}`",
    "lr_gamma": "write `lr_scheduler: {gamma: ...}`",
    "lrsheduler": "write `lr_scheduler`",
    "tuning": "use the option -t of train.py",
    "resume": "use the option -r of train.py",
    "last_epoch": "delete it; -r continues where the checkpoint ended",
    "use_wandb": "delete it; runs are logged to TensorBoard and metrics.jsonl",
    "*_dataloader.batch_size": "write `total_batch_size`, of all processes together",
    "*_dataloader.collate_fn": (
        "write `multi_scale: {base_size_repeat: ...}` at the top level (base_size is eval_spatial_size), "
        "and stop_epoch and ema_restart_decay as a stage of `stages`"
    ),
    "*.dataset.transforms.policy.epoch": (
        "write the epoch as a stage of `stages`: `{start: 72, strong_augmentation: False}`"
    ),
    "*.dataset.transforms.policy.name": "delete it; `stages` says when the strong transforms run",
    "*.dataset.return_masks": "delete it; boxes are all that is read",
    "evaluator.iou_types": "delete it; boxes are what is judged",
    "ema.start": "delete it; the average starts with the first step",
    "optimizer.*.initial_lr": "write `lr`",
}


def advice(path: str) -> str | None:
    """What to write instead of a key of upstream's; None for a key that upstream does not have either."""
    return next((text for pattern, text in RENAMED.items() if fnmatchcase(path, pattern)), None)
