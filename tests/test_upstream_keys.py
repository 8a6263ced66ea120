"""Every key of upstream's YAML files means the same here, or the error names what to write instead."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from src import assembly
from src.core import ConfigError

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "dfine" / "dfine_hgnetv2_l_coco.yml"

# dotted key: upstream's value, for D-FINE-L on COCO where it depends on that
SAME: dict[str, Any] = {
    "task": "detection",
    "num_classes": 80,
    "print_freq": 500,
    "output_dir": "./output/elsewhere",
    "checkpoint_freq": 12,
    "sync_bn": True,
    "use_amp": True,
    "use_ema": True,
    "ema.type": "ModelEMA",
    "ema.decay": 0.9998,
    "ema.warmups": 0,
    "seed": 3,
    "device": "cpu",
    "summary_dir": "./output/summary",
    "epochs": 74,
    "clip_max_norm": 0.1,
    "optimizer.type": "AdamW",
    "optimizer.lr": 0.00025,
    "optimizer.weight_decay": 0.000125,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.params": [{"params": "^(?=.*backbone)(?!.*norm|bn).*$", "lr": 0.0000125}],
    "lr_scheduler.type": "MultiStepLR",
    "lr_scheduler.milestones": [500],
    "lr_scheduler.gamma": 0.1,
    "lr_warmup_scheduler.type": "LinearWarmup",
    "lr_warmup_scheduler.warmup_duration": 0,
    "evaluator.type": "CocoEvaluator",
    "train_dataloader.type": "DataLoader",
    "train_dataloader.dataset.type": "CocoDetection",
    "train_dataloader.dataset.img_folder": "/data/COCO2017/train2017/",
    "train_dataloader.dataset.ann_file": "/data/COCO2017/annotations/instances_train2017.json",
    "train_dataloader.dataset.transforms.type": "Compose",
    "train_dataloader.dataset.transforms.policy.ops": ["RandomZoomOut"],
    "train_dataloader.shuffle": True,
    "train_dataloader.num_workers": 4,
    "train_dataloader.drop_last": True,
    "train_dataloader.total_batch_size": 32,
    "val_dataloader.shuffle": False,
    "val_dataloader.drop_last": False,
    "val_dataloader.total_batch_size": 64,
    "model": "DFINE",
    "criterion": "DFINECriterion",
    "postprocessor": "DFINEPostProcessor",
    "eval_spatial_size": [640, 640],
    "HGNetv2.name": "B4",
    "HGNetv2.return_idx": [1, 2, 3],
    "HGNetv2.freeze_at": 0,
    "HGNetv2.freeze_stem_only": True,
    "HGNetv2.freeze_norm": True,
    "HGNetv2.use_lab": False,
    "HGNetv2.pretrained": True,
    "HybridEncoder.in_channels": [512, 1024, 2048],
    "HybridEncoder.feat_strides": [8, 16, 32],
    "HybridEncoder.hidden_dim": 256,
    "HybridEncoder.use_encoder_idx": [2],
    "HybridEncoder.num_encoder_layers": 1,
    "HybridEncoder.nhead": 8,
    "HybridEncoder.dim_feedforward": 1024,
    "HybridEncoder.dropout": 0.0,
    "HybridEncoder.enc_act": "gelu",
    "HybridEncoder.pe_temperature": 10000,
    "HybridEncoder.expansion": 1.0,
    "HybridEncoder.depth_mult": 1,
    "HybridEncoder.act": "silu",
    "DFINETransformer.feat_channels": [256, 256, 256],
    "DFINETransformer.feat_strides": [8, 16, 32],
    "DFINETransformer.hidden_dim": 256,
    "DFINETransformer.num_levels": 3,
    "DFINETransformer.num_layers": 6,
    "DFINETransformer.eval_idx": -1,
    "DFINETransformer.num_queries": 300,
    "DFINETransformer.nhead": 8,
    "DFINETransformer.dim_feedforward": 1024,
    "DFINETransformer.dropout": 0.0,
    "DFINETransformer.activation": "relu",
    "DFINETransformer.num_denoising": 100,
    "DFINETransformer.label_noise_ratio": 0.5,
    "DFINETransformer.box_noise_scale": 1.0,
    "DFINETransformer.learn_query_content": False,
    "DFINETransformer.reg_max": 32,
    "DFINETransformer.reg_scale": 4,
    "DFINETransformer.layer_scale": 1,
    "DFINETransformer.num_points": [3, 6, 3],
    "DFINETransformer.cross_attn_method": "default",
    "DFINETransformer.query_select_method": "default",
    "DFINEPostProcessor.num_top_queries": 300,
    "DFINECriterion.weight_dict": {
        "loss_vfl": 1, "loss_bbox": 5, "loss_giou": 2, "loss_fgl": 0.15, "loss_ddf": 1.5,
    },
    "DFINECriterion.losses": ["vfl", "boxes", "local"],
    "DFINECriterion.alpha": 0.75,
    "DFINECriterion.gamma": 2.0,
    "DFINECriterion.reg_max": 32,
    "HungarianMatcher.weight_dict": {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2},
    "HungarianMatcher.alpha": 0.25,
    "HungarianMatcher.gamma": 2.0,
}  # fmt: skip

# key = value: what the error must name
OTHER = {
    "epoches=72": "`epochs`",
    "print_method=builtin": "Python's logging",
    "print_rank=0": "first process",
    "find_unused_parameters=False": "every parameter that trains is used",
    "scaler.type=GradScaler": "`amp: {dtype: float16}`",
    "scaler.enabled=True": "`amp: {dtype: float16}`",
    "use_focal_loss=True": "DFINECriterion",
    "remap_mscoco_category=True": "contiguous",
    "use_wandb=False": "TensorBoard",
    "project_name=D-FINE": "`output_dir`",
    "exp_name=first": "`output_dir`",
    "resume=x.pth": "option -r",
    "tuning=x.pth": "option -t",
    "last_epoch=-1": "-r continues",
    "lrsheduler=flatcosine": "`lr_scheduler`",
    "lr_gamma=0.5": "gamma",
    "warmup_iter=2000": "warmup_duration",
    "flat_epoch=29": "flat_epochs",
    "no_aug_epoch=8": "no_aug_epochs",
    "teacher_model.type=DINOv3": "last layer",
    "PResNet.depth=50": "`HGNetv2`",
    "ema.start=0": "first step",
    "evaluator.iou_types=[bbox]": "boxes are what is judged",
    "train_dataloader.batch_size=4": "`total_batch_size`",
    "train_dataloader.dataset.return_masks=False": "boxes",
    "train_dataloader.dataset.root=./dataset/voc": "`img_folder`",
    "train_dataloader.dataset.label_file=labels.txt": "categories",
    "train_dataloader.dataset.transforms.policy.name=stop_epoch": "`stages`",
    "train_dataloader.dataset.transforms.policy.epoch=72": "`stages`",
    "train_dataloader.collate_fn.type=BatchImageCollateFunction": "multi_scale",
    "train_dataloader.collate_fn.base_size=640": "eval_spatial_size",
    "train_dataloader.collate_fn.base_size_repeat=4": "base_size_repeat",
    "train_dataloader.collate_fn.stop_epoch=72": "a stage of `stages`",
    "train_dataloader.collate_fn.ema_restart_decay=0.9999": "ema_restart_decay",
    "train_dataloader.collate_fn.mixup_prob=0.5": "mixup",
    "val_dataloader.collate_fn.type=BatchImageCollateFunction": "multi_scale",
    "HGNetv2.local_model_dir=weight/hgnetv2/": "`checkpoint_path`",
    "HybridEncoder.eval_spatial_size=[640, 640]": "top level",
    "HybridEncoder.version=dfine": "`fusion`",
    "DFINETransformer.eval_spatial_size=[640, 640]": "top level",
    "DFINETransformer.aux_loss=True": "every layer has its losses",
    "DFINETransformer.eps=0.01": "0.01",
    "DFINETransformer.num_classes=80": "set by the program",
    "DFINECriterion.num_classes=80": "set by the program",
    "DFINECriterion.end_epoch=72": "every epoch",
    "DFINECriterion.boxes_weight_format=~": "the same",
    "DFINECriterion.share_matched_indices=False": "each layer is matched",
    "HungarianMatcher.use_focal_loss=True": "sigmoids",
    "HungarianMatcher.change_matcher=True": "every epoch",
    "DFINEPostProcessor.num_classes=80": "set by the program",
    "DFINEPostProcessor.use_focal_loss=True": "sigmoids",
    "DFINEPostProcessor.remap_mscoco_category=True": "contiguous",
}


def found(experiment: Any, dotted: str) -> Any:
    """The value at a dotted key of an experiment, lists and rules in the YAML's form."""
    head, *rest = dotted.split(".")
    value = experiment.components[head] if head in experiment.components else getattr(experiment, head)
    for key in rest:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if hasattr(value, "params") and hasattr(value, "weight_decay"):
        return {"params": value.params, "lr": value.lr}
    return value


@pytest.fixture(scope="module")
def experiment() -> Any:
    tree = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in SAME.items()]
    return assembly.load(CONFIG, [text.removesuffix("\n...") for text in tree])


@pytest.mark.parametrize("key", SAME)
def test_a_key_that_means_the_same(experiment: Any, key: str) -> None:
    assert found(experiment, key) == SAME[key]


def test_a_model_is_built_from_upstreams_values(experiment: Any) -> None:
    model = assembly.build_model(experiment)
    assembly.build_criterion(experiment)
    assert sum(p.numel() for p in model.parameters()) + 2 == 31_244_152


def test_upstreams_transforms_with_all_their_knobs() -> None:
    ops = (
        "[{type: RandomPhotometricDistort, p: 0.5}, {type: RandomZoomOut, fill: 0}, "
        "{type: RandomIoUCrop, p: 0.8}, {type: SanitizeBoundingBoxes, min_size: 1}, "
        "{type: RandomHorizontalFlip}, {type: Resize, size: [640, 640]}, "
        "{type: ConvertPILImage, dtype: float32, scale: True}, "
        "{type: ConvertBoxes, fmt: cxcywh, normalize: True}]"
    )
    experiment = assembly.load(CONFIG, [f"train_dataloader.dataset.transforms.ops={ops}"])
    stated = experiment.train_dataloader.dataset.transforms.ops
    assert [{"type": op.type, **op.knobs} for op in stated] == [
        {key: tuple(value) if isinstance(value, list) else value for key, value in op.items()}
        for op in yaml.safe_load(ops)
    ]


@pytest.mark.parametrize("override", OTHER)
def test_a_key_that_is_another_here(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assembly.load(CONFIG, [override])
    (fault,) = caught.value.problems
    assert fault.startswith(f"-u {override}: ")
    assert OTHER[override] in fault.removeprefix(f"-u {override}: ")


def test_a_voc_dataset_is_told_what_is_read() -> None:
    with pytest.raises(ConfigError, match="dataset.type must be CocoDetection, not the text 'VOCDetection'"):
        assembly.load(CONFIG, ["train_dataloader.dataset.type=VOCDetection"])


def test_transforms_left_open_by_a_dataset_file_are_those_of_the_dataloader_file(tmp_path: Path) -> None:
    (tmp_path / "data.yml").write_text("train_dataloader: {dataset: {transforms: {type: Compose, ops: ~}}}\n")
    include = [str(tmp_path / "data.yml"), str(CONFIG)]
    (tmp_path / "run.yml").write_text(f"__include__: {include}\n")
    experiment = assembly.load(tmp_path / "run.yml")
    assert experiment.train_dataloader == assembly.load(CONFIG).train_dataloader
