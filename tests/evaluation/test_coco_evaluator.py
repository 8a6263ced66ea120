import json

import pytest
import torch
from evaluation_cases import EVAL_CASES, detections, evaluator_of, load_case, random_case, write_json

from src.evaluation import matching
from src.evaluation import scoring as scoring_module
from src.structures import Detections

BACKENDS = ("numpy", "faster_coco_eval", "pycocotools")
NEEDS_SHARED = pytest.mark.skipif(not EVAL_CASES.is_dir(), reason="../shared/data/eval_cases is not here")


def box_object(image_id, box, number=1, category=10, **more):
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": box, **more}


@NEEDS_SHARED
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", ["coco_val2014_fake100", "ignore_crowd_one_image", "torchmetrics_single_box"]
)
def test_reference_numbers(name, backend):
    cases = json.loads((EVAL_CASES / "expected.json").read_text())["cases"]
    case = next(c for c in cases if c["name"] == name)
    # float32 boxes move two overlaps of the 100 pictures that lie exactly on a threshold (0.8 and 0.6)
    for dtype, tolerance in ((torch.float64, case["abs_tol"]), (torch.float32, 2e-3)):
        ann_file, found = load_case(name, dtype)
        evaluator = evaluator_of(ann_file, backend)
        for image_id, picture in found.items():
            evaluator.update([image_id], picture)
        assert evaluator.compute().numbers() == pytest.approx(case["expected"], abs=tolerance, rel=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_case_worked_out_by_hand(tmp_path, backend):
    # Two objects. Found: the first exactly (0.9), nothing (0.8), the second with IoU 0.62 (0.7).
    objects = [box_object(1, [0, 0, 100, 100], 1), box_object(2, [0, 0, 100, 100], 2)]
    write_json(tmp_path / "gt.json", [1, 2], objects)
    evaluator = evaluator_of(tmp_path / "gt.json", backend)
    evaluator.update([1], detections([(0, [0, 0, 100, 100], 0.9), (0, [300, 300, 400, 400], 0.8)]))
    evaluator.update([2], detections([(0, [0, 0, 62, 100], 0.7)]))
    metrics = evaluator.compute()
    # 101 recall points: 51 up to recall 0.5 at precision 1, the other 50 at 2/3 for IoU 0.50, 0.55, 0.60
    loose, strict = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert metrics.AP50 == pytest.approx(loose, abs=1e-9)
    assert metrics.AP75 == pytest.approx(strict, abs=1e-9)
    assert metrics.AP == pytest.approx(0.3 * loose + 0.7 * strict, abs=1e-9)
    assert metrics.AR_1 == metrics.AR_100 == pytest.approx(0.3 * 1 + 0.7 * 0.5)
    assert metrics.AP_large == metrics.AP and metrics.AP_small == metrics.AP_medium == -1
    assert metrics.classes[0].num_objects == 2 and metrics.classes[0].id == 10


@pytest.fixture(scope="module")
def random_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "gt.json"
    return path, random_case(path)


def evaluate(path, found, backend="numpy"):
    evaluator = evaluator_of(path, backend)
    for start in (0, 1, 17):  # batches of 1, 16 and the rest
        stop = {0: 1, 1: 17, 17: len(found.labels)}[start]
        evaluator.update(
            [7 * i for i in range(start, stop)], Detections(*(part[start:stop] for part in found))
        )
    return evaluator.compute()


def test_backends_agree_and_class_mean_is_ap(random_set):
    metrics = [evaluate(*random_set, backend=backend) for backend in BACKENDS]
    for other in metrics[1:]:
        assert metrics[0].numbers() == pytest.approx(other.numbers(), abs=1e-9, rel=0)
    assert 0.05 < metrics[0].AP < 0.95 and len(set(metrics[0].numbers().values())) == 12
    for mine, other in zip(metrics[0].classes, metrics[1].classes, strict=True):
        assert mine[2:] == pytest.approx(other[2:], abs=1e-9)
    measured = [row for row in metrics[0].classes if row.num_objects]
    assert len(measured) == 3 and metrics[0].classes[3][2:] == (-1, -1, -1, 0)
    assert sum(row.AP for row in measured) / 3 == pytest.approx(metrics[0].AP, abs=1e-9)
    assert sum(row.AP50 for row in measured) / 3 == pytest.approx(metrics[0].AP50, abs=1e-9)
    assert sum(row.AR_100 for row in measured) / 3 == pytest.approx(metrics[0].AR_100, abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_of_classes_change_nothing(random_set, monkeypatch, backend):
    whole = evaluate(*random_set, backend=backend)
    calls = []
    measure = scoring_module.MEASURES[backend]
    monkeypatch.setattr(scoring_module, "ROWS_AT_ONCE", 1)
    monkeypatch.setitem(scoring_module.MEASURES, backend, lambda *a: calls.append(1) or measure(*a))
    assert evaluate(*random_set, backend=backend) == whole
    assert len(calls) == 3


def test_blocks_of_pairs_change_nothing(random_set, monkeypatch):
    whole = evaluate(*random_set, backend="numpy")
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 7)
    assert evaluate(*random_set, backend="numpy") == whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_annotation_ids_may_be_0_repeated_or_missing(tmp_path, backend):
    objects = [box_object(i, [0, 0, 50, 50], 0) for i in (1, 2)]
    del objects[1]["id"]
    write_json(tmp_path / "gt.json", [1, 2], objects)
    evaluator = evaluator_of(tmp_path / "gt.json", backend)
    for image_id in (1, 2):
        evaluator.update([image_id], detections([(0, [0, 0, 50, 50], 0.5)]))
    assert evaluator.compute().AP == pytest.approx(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_give_0_and_no_objects_give_minus_1(tmp_path, backend):
    write_json(tmp_path / "gt.json", [1, 2], [box_object(1, [0, 0, 50, 50])])
    empty = Detections(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 4), torch.zeros(2, 0))
    evaluator = evaluator_of(tmp_path / "gt.json", backend)
    evaluator.update([1, 2], empty)
    metrics = evaluator.compute()
    assert metrics.AP == metrics.AR_100 == metrics.AP_medium == 0 and metrics.AP_large == -1

    write_json(tmp_path / "none.json", [1, 2], [])
    evaluator = evaluator_of(tmp_path / "none.json", backend)
    evaluator.update([1], detections([(0, [0, 0, 9, 9], 0.5)]))
    assert set(evaluator.compute().numbers().values()) == {-1}


def test_area_and_iscrowd_of_the_file_count(tmp_path):
    # the mask's area makes the first object small; the crowd region is no object but excuses what it holds
    objects = [
        box_object(1, [0, 0, 50, 50], 1, area=100.0),
        box_object(1, [100, 100, 200, 200], 2, iscrowd=1),
        box_object(2, [0, 0, 50, 50], 3),
    ]
    write_json(tmp_path / "gt.json", [1, 2], objects)
    evaluator = evaluator_of(tmp_path / "gt.json")
    rows = [(0, [0, 0, 50, 50], 0.9), (0, [110, 110, 150, 150], 0.95)]
    evaluator.update([1], detections(rows))
    evaluator.update([2], detections(rows[:1]))
    metrics = evaluator.compute()
    assert [metrics.AP, metrics.AP_small, metrics.AP_medium] == pytest.approx([1, 1, 1])
    assert metrics.AR_1 == pytest.approx(0.5)  # picture 1's best detection is the one in the crowd
    assert metrics.classes[0].num_objects == 2


def test_ids_beyond_float_precision_stay_apart(tmp_path):
    ids = [2**53, 2**53 + 1]
    write_json(tmp_path / "gt.json", ids, [box_object(ids[1], [0, 0, 50, 50])])
    evaluator = evaluator_of(tmp_path / "gt.json")
    evaluator.update(ids[1:], detections([(0, [0, 0, 50, 50], 0.5)]))
    evaluator.update(ids[:1], detections([]))
    assert evaluator.compute().AP == pytest.approx(1)


def test_repeated_pictures_count_once_with_their_first_detections(random_set):
    path, found = random_set
    once = evaluate(path, found)
    evaluator = evaluator_of(path)
    evaluator.update([7 * i for i in range(30)], found)
    evaluator.update([0, 7], Detections(*(part[5:7] for part in found)))
    assert evaluator.compute() == once
    assert evaluator.compute() == once  # scoring forgets nothing
    evaluator.reset()
    assert evaluator.compute().AP == 0


def test_pictures_never_reported_are_warned_of_once(random_set, caplog):
    path, found = random_set
    evaluator = evaluator_of(path)
    evaluator.update([0, 7], Detections(*(part[:2] for part in found)))
    partial = evaluator.compute()
    evaluator.compute()
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == 1 and "28 of the 30 pictures" in said[0]
    assert 0 < partial.AP < evaluate(path, found).AP


def test_half_precision_and_gradient_are_taken(tmp_path):
    write_json(tmp_path / "gt.json", [1], [box_object(1, [0, 0, 64, 64])])
    evaluator = evaluator_of(tmp_path / "gt.json")
    found = detections([(0, [0, 0, 64, 64], 0.5)])
    evaluator.update(
        [1],
        found._replace(boxes_xyxy_px=found.boxes_xyxy_px.bfloat16(), scores=found.scores.requires_grad_()),
    )
    assert evaluator.compute().AP == pytest.approx(1)


def test_faults_of_the_caller(tmp_path):
    path = tmp_path / "gt.json"
    write_json(path, [1], [box_object(1, [0, 0, 50, 50])])
    evaluator = evaluator_of(path)
    good = detections([(0, [0, 0, 9, 9], 0.5)])
    with pytest.raises(ValueError, match=r"image id 5 is not in .*gt\.json"):
        evaluator.update([5], good)
    with pytest.raises(ValueError, match="2 image ids came with detections of 1 pictures"):
        evaluator.update([1, 1], good)
    with pytest.raises(ValueError, match="not finite"):
        evaluator.update([1], detections([(0, [0, 0, 9, float("nan")], 0.5)]))
    with pytest.raises(ValueError, match="none of the 1 classes"):
        evaluator.update([1], detections([(1, [0, 0, 9, 9], 0.5)]))
    with pytest.raises(ValueError, match="'cocoapi' is unknown: numpy, faster_coco_eval, pycocotools"):
        evaluator_of(path, "cocoapi")


def test_metrics_as_dict_and_table(random_set):
    metrics = evaluate(*random_set)
    content = json.loads(json.dumps(metrics.to_dict()))
    assert list(content)[:3] == ["AP", "AP50", "AP75"] and len(content) == 13
    assert content["classes"][1]["name"] == "class 1" and content["classes"][1]["id"] == 20
    lines = metrics.table().splitlines()
    assert len(lines) == 3 + 1 + 2 + 4
    assert len({len(line) for line in lines[4:]}) == 1  # aligned
    assert f"{100 * metrics.AP:.1f}" in lines[0] and lines[-1].split()[-3:] == ["-", "-", "-"]
