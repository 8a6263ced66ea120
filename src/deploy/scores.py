"""COCO's numbers of a detector, whatever runs it: PyTorch, ONNX Runtime or OpenVINO."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..core import DatasetSettings
from ..data import (
    CocoDetection,
    Origin,
    ReadSet,
    build_eval_loader,
    find_origin,
    read_origin,
    to_device_images,
)
from ..evaluation import CocoEvaluator, CocoMetrics
from .predictor import evaluation_pipeline, runtime_sizes
from .runtimes import Runtime

BATCH = 8
LENIENT = DatasetSettings(drop_empty_boxes=True)  # the score counts them, as COCO's tools do


def origin_of(paths: Sequence[Path], split: str = "val") -> Origin:
    """What a person names as pictures with objects: a folder of them and its COCO JSON, or a dataset.

    Args:
        paths: Two of them, or one, as `data=` takes it.
        split: Which part of that one is meant, `train` or `val`.

    Raises:
        ValueError: There are more or none, or the dataset is none.
    """
    if len(paths) == 2:
        return Origin(paths[0], paths[1])
    if len(paths) != 1:
        raise ValueError(f"{len(paths)} paths came as data, allowed are IMAGES ANNOTATIONS or one dataset")
    return find_origin(str(paths[0]), DatasetSettings(), split)


def read_leniently(origin: Origin, split: str = "val") -> ReadSet:
    """A dataset whose boxes of no size stop nothing; arguments and errors as of `read_origin`."""
    return read_origin(origin, LENIENT, split)


def count_pictures(origin: Origin) -> int:
    """How many pictures a dataset has."""
    return len(read_leniently(origin).annotations.image_ids)


def coco_numbers(runtime: Runtime, origin: Origin, *, batch_size: int = BATCH) -> CocoMetrics:
    """COCO's numbers of all that a runtime finds, in pictures prepared as evaluation prepares them.

    A model in PyTorch as it was trained, in float32, gets what `train.py --test-only` says of it. Labels
    become ids by the runtime's classes.

    Args:
        runtime: What detects.
        origin: The pictures and their objects.
        batch_size: Pictures in one call.

    Raises:
        ValueError: A picture or the annotation file is missing or faulty, the file is of other classes than
            the runtime's, or a score or a box is not finite.
    """
    pipeline = evaluation_pipeline(runtime.input_hw, keep_ratio=runtime.keep_ratio)
    pictures = read_leniently(origin)
    dataset = CocoDetection(
        pictures.img_folder,
        pictures.ann_file,
        pipeline,
        classes=runtime.classes,
        annotations=pictures.annotations,
    )
    truth = dataset.annotations.stated
    assert truth is not None, "it was not read to be scored"
    evaluator = CocoEvaluator(origin.ann_file, runtime.classes, truth)
    loader = build_eval_loader(dataset, batch_size=batch_size)
    for batch in tqdm(loader, desc="evaluate", unit="batch", disable=not sys.stderr.isatty(), leave=False):
        sizes_hw = runtime_sizes(batch.targets.sizes_hw, runtime.input_hw, keep_ratio=runtime.keep_ratio)
        found = runtime.run(to_device_images(batch.images), sizes_hw)
        evaluator.update(batch.targets.image_ids, found)
    return evaluator.compute()
