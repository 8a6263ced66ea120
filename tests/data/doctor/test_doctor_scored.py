"""Repaired data is scored as it is trained on, and annotation id 0 is a match like any other."""

import json

import pytest
import torch
from doctor_zoo import ZOO, Dataset, broken

from src.data import read_annotations
from src.data.annotations import follow_classes, read_repaired
from src.evaluation import CocoEvaluator
from src.structures import ClassNames, Detections

BACKENDS = ("numpy", "pycocotools", "faster_coco_eval")
REPAIRED = sorted(
    name
    for name, fault in ZOO.items()
    if fault.code in ("box-swapped", "box-from-polygon", "crowd-flag-odd", "area-broken")
)


def perfect_score(data: Dataset, split: str, backend: str) -> float:
    """AP of the very boxes that are trained on, as detections."""
    path = data.json(split)
    packed = read_annotations(path, scored=True)
    evaluator = CocoEvaluator(path, packed.classes, packed.stated, backend=backend)
    for k, image_id in enumerate(packed.image_ids.tolist()):
        boxes, labels = packed.objects(k)
        evaluator.update([image_id], Detections(labels[None], boxes[None], torch.full((1, len(labels)), 0.9)))
    return evaluator.compute().AP


@pytest.mark.parametrize("backend", BACKENDS)
def test_annotation_id_0_counts_as_a_match(backend, tmp_path):
    data, _ = broken("annotation id 0", tmp_path / "data")
    assert perfect_score(data, "train", backend) == pytest.approx(1)


def test_pycocotools_by_itself_loses_the_match_with_id_0(tmp_path):
    """Why there is a warning: COCO's own tools on the same file."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    data, _ = broken("annotation id 0", tmp_path / "data")
    truth = coco.COCO(str(data.json("train")))
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in data.train["annotations"]
    ]
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] < 0.99


@pytest.mark.parametrize("name", REPAIRED)
def test_repaired_boxes_are_scored_as_they_are_trained_on(name, tmp_path):
    data, _ = broken(name, tmp_path / "data")
    assert perfect_score(data, "train", "numpy") == pytest.approx(1)


def test_what_is_scored_follows_the_training_sets_classes(tmp_path):
    data = Dataset(tmp_path / "data")
    data.write()
    packed = read_annotations(data.json("train"), scored=True)
    names, ids = packed.classes
    classes = ClassNames(("other", *names[::-1]), (999, *ids[::-1]))
    followed = follow_classes(packed, classes, data.json("train"))
    expected = [len(ids) - label for label in packed.stated.labels.tolist()]
    assert len(set(expected)) > 1 and followed.stated.labels.tolist() == expected


def test_boxes_that_cocos_tools_can_read_are_scored_as_the_file_has_them(tmp_path):
    data = Dataset(tmp_path / "data")
    data.train["annotations"][0]["bbox"] = [40, -5, 50, 20]
    data.train["annotations"].append({**data.train["annotations"][1], "id": 99})
    data.train["annotations"][2]["bbox"] = [10, 10, 0, 5]
    data.write()
    assert read_repaired(data.json("train")) == data.train == json.loads(data.json("train").read_text())
