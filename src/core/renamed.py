"""Keys of upstream's YAML that have another name or another home here."""

from fnmatch import fnmatchcase

# Dotted path (with `*` for any characters) -> what to write instead.
RENAMED = {
    "epoches": "write `epochs`",
    "print_method": "delete it; lines are logged by Python's logging",
    "print_rank": "delete it; the first process logs",
    "find_unused_parameters": "delete it; every parameter that trains is used",
    "scaler": "write `amp: {dtype: float16}`; float16 is scaled by itself",
    "flat_epoch": "write `lr_scheduler: {type: FlatCosineLR, flat_epochs: ...}`",
    "no_aug_epoch": "write `lr_scheduler: {type: FlatCosineLR, no_aug_epochs: ...}`",
    "warmup_iter": "write `lr_warmup_scheduler: {type: QuadraticWarmup, warmup_duration: ...}`",
    "lr_gamma": "write `lr_scheduler: {gamma: ...}`",
    "lrsheduler": "write `lr_scheduler`",
    "tuning": "use the option -t of train.py",
    "resume": "use the option -r of train.py",
    "last_epoch": "delete it; -r continues where the checkpoint ended",
    "use_wandb": "delete it; runs are logged to TensorBoard and metrics.jsonl",
    "project_name": "delete it; write `output_dir`, runs are not sent anywhere",
    "exp_name": "delete it; write `output_dir`, runs are not sent anywhere",
    "teacher_model": "delete it; the only teacher is the model's own last layer",
    "PResNet": "write `HGNetv2` or `DINOv3Backbone`; there is no ResNet here",
    "*_dataloader.batch_size": "write `total_batch_size`, of all processes together",
    "*_dataloader.collate_fn": (
        "write `multi_scale: {base_size_repeat: ...}` at the top level (base_size is eval_spatial_size), "
        "and stop_epoch and ema_restart_decay as a stage of `stages`; mixup and copyblend are stages' chances"
    ),
    "ops.Mosaic": "write its chance in a stage, `stages: [{start: 4, mosaic: 0.5}]`; `mixing` has its knobs",
    "*.dataset.transforms.policy.epoch": (
        "write the epoch as a stage of `stages`: `{start: 72, strong_augmentation: False}`"
    ),
    "*.dataset.transforms.policy.name": "delete it; `stages` says when the strong transforms run",
    "*.dataset.return_masks": "delete it; boxes are all that is read",
    "*.dataset.root": "write `img_folder` and `ann_file`; annotations are read as COCO JSON",
    "*.dataset.label_file": "delete it; class names come from the categories of `ann_file`",
    "evaluator.iou_types": "delete it; boxes are what is judged",
    "ema.start": "delete it; the average starts with the first step",
    "optimizer.*.initial_lr": "write `lr`",
    "HGNetv2.local_model_dir": "write `checkpoint_path`, the weights' file itself",
    "HybridEncoder.version": "write `fusion` and `fuse_block`",
    "*.aux_loss": "delete it; every layer has its losses",
    "DFINETransformer.eps": "delete it; it is 0.01",
    "*.eval_spatial_size": "write it at the top level; every size runs, and the base of training is that one",
    "DFINECriterion.end_epoch": "delete it; the losses are the same in every epoch",
    "DFINECriterion.boxes_weight_format": "delete it; every matched box counts the same",
    "DFINECriterion.share_matched_indices": "delete it; each layer is matched by itself",
    "HungarianMatcher.change_matcher": "delete it; the costs are the same in every epoch",
    "*use_focal_loss": "delete it; scores are sigmoids, and the losses are those of DFINECriterion",
    "*remap_mscoco_category": "delete it; category ids are made contiguous from the annotation file",
}


def advice(path: str) -> str | None:
    """What to write instead of a key of upstream's; None for a key that upstream does not have either."""
    return next((text for pattern, text in RENAMED.items() if fnmatchcase(path, pattern)), None)
