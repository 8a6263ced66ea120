"""Pictures and their boxes: from COCO files to batches."""

from .annotations import read_annotations
from .before_training import examine_before_training
from .coco import CocoDetection
from .collate import collate
from .decode import PictureError, decode_bytes, decode_rgb, rgb_of
from .doctor import Report
from .loader import EvalLoader, TrainLoader, build_eval_loader, build_train_loader
from .mixing import Chances, Mixing
from .multi_scale import draw_size, sizes_for, to_device_images
from .origin import Origin, ReadSet, count_classes, find_origin, find_origins, read_origin, read_set
from .packed import PackedAnnotations
from .pipeline import TRANSFORMS, Pipeline, build_pipeline
from .sampler import EvalBatches, TrainBatches
from .statements import Normalize
from .synthetic import DemoSettings, write_demo_dataset

__all__ = [
    "TRANSFORMS",
    "Chances",
    "CocoDetection",
    "DemoSettings",
    "EvalBatches",
    "EvalLoader",
    "Mixing",
    "Normalize",
    "Origin",
    "PackedAnnotations",
    "Pipeline",
    "PictureError",
    "ReadSet",
    "Report",
    "TrainBatches",
    "TrainLoader",
    "build_eval_loader",
    "build_pipeline",
    "build_train_loader",
    "collate",
    "count_classes",
    "decode_bytes",
    "decode_rgb",
    "draw_size",
    "examine_before_training",
    "find_origin",
    "find_origins",
    "read_annotations",
    "read_origin",
    "read_set",
    "rgb_of",
    "sizes_for",
    "to_device_images",
    "write_demo_dataset",
]
