"""The same numbers on any number of processes, with gloo."""

import json

import pytest
import torch
from evaluation_cases import EVAL_CASES, evaluator_of, load_case, random_case
from ranks import on_ranks

from src.structures import Detections

pytestmark = pytest.mark.dist


def report(evaluator, image_ids, found):
    for image_id in image_ids:
        evaluator.update([image_id], found[image_id])


def split(image_ids, rank, world):
    """Unequal parts: the last rank gets no picture, those between one each, and the first the rest."""
    if rank == world - 1:
        return []
    return image_ids[world - 2 :] if rank == 0 else image_ids[rank - 1 : rank]


def padded(image_ids, rank, world):
    """What a DistributedSampler does: every world-th picture, with the first ones again to make it even."""
    total = -(-len(image_ids) // world) * world
    return (image_ids + image_ids * world)[:total][rank::world]


def mangled(found):
    """Other detections, to see whose count."""
    return {i: d._replace(boxes_xyxy_px=d.boxes_xyxy_px + 500, scores=d.scores / 2) for i, d in found.items()}


def evaluate(rank, world, folder):
    results = {}
    names = []
    if EVAL_CASES.is_dir():
        names = [case["name"] for case in json.loads((EVAL_CASES / "expected.json").read_text())["cases"]]
    cases = {name: load_case(name, torch.float64) for name in names}
    path = folder / f"gt{rank}.json"
    batch = random_case(path, num_images=10, num_found=40)
    cases["random"] = (path, {7 * i: Detections(*(p[i : i + 1] for p in batch)) for i in range(10)})
    for name, (ann_file, found) in cases.items():
        image_ids = list(found)
        evaluator = evaluator_of(ann_file)
        report(evaluator, split(image_ids, rank, world), found)
        results[f"{name} unequal"] = evaluator.compute().to_dict()
        evaluator.reset()
        report(evaluator, padded(image_ids, rank, world), found)
        results[f"{name} padded"] = evaluator.compute().to_dict()
        evaluator.reset()
        report(evaluator, image_ids, found if rank == 0 else mangled(found))
        results[f"{name} repeated"] = evaluator.compute().to_dict()
    return results


@pytest.mark.parametrize("world", [2, 3])
def test_numbers_do_not_depend_on_processes(tmp_path, world):
    ranks = on_ranks(evaluate, world, tmp_path, world, tmp_path)
    assert all(results == ranks[0] for results in ranks)  # every rank is told everything

    found = random_case(tmp_path / "gt.json", num_images=10, num_found=40)
    alone = evaluator_of(tmp_path / "gt.json")
    alone.update([7 * i for i in range(10)], found)
    expected = {"random": (alone.compute().numbers(), 1e-9)}
    if EVAL_CASES.is_dir():
        for case in json.loads((EVAL_CASES / "expected.json").read_text())["cases"]:
            expected[case["name"]] = (case["expected"], case["abs_tol"])
    assert len(ranks[0]) == len(expected) * 3
    for key, result in ranks[0].items():
        numbers, tolerance = expected[key.split()[0]]
        measured = {name: result[name] for name in numbers}
        assert measured == pytest.approx(numbers, abs=tolerance, rel=0), key
