"""Scoring by COCO's measure: our arrays against the libraries, in turns, on the same made detections.

    python -m benchmarks.evaluation [--pictures 1000 5000] [--rounds 5] [--backends numpy pycocotools]

COCO's val2017 has 5,000 pictures; pycocotools then takes minutes a round, and has to be asked for. A round is
what a run does after its last picture left the model: batches of 16 into `CocoEvaluator`, then `compute`. A
library's round includes the packing of detections into the dicts that it reads. Everything runs in one
thread, so that the processor's seconds, which are counted here, are a clock's on an idle machine.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from src import door
from src.data import read_annotations
from src.deploy.comparison.timing import interleaved
from src.evaluation import Backend, CocoEvaluator, CocoMetrics
from src.structures import ClassNames, Detections

from .pairs import CLOCKS, Way
from .rows import Row, machine, machine_line, report

SIDE_PX, BATCH = 640, 16
COCO_PICTURES, LONGEST, SLOW = 5000, 18.0, "pycocotools"
CLASSES = ClassNames(tuple(str(i) for i in range(80)), tuple(range(1, 81)))
SHARES = (np.arange(len(CLASSES.ids)) + 1.0) ** -0.8
SHARES /= SHARES.sum()


def boxes_xyxy(random: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    """[count, 4] boxes with COCO's mix of sizes: about two fifths small, a quarter large."""
    sides = np.exp(random.normal(3.8, 1.1, (count, 2))).clip(3, 500)
    corner = random.random((count, 2)) * (SIDE_PX - sides)
    return np.concatenate((corner, corner + sides), 1)


def picture(random: np.random.Generator, image_id: int, num_found: int) -> tuple[list[Any], list[Any]]:
    """A picture's annotations, about seven, and its `num_found` (label, box, score), the best first."""
    count = min(random.poisson(7.3), 60)
    truth, labels = boxes_xyxy(random, count), random.choice(len(SHARES), count, p=SHARES)
    sides = truth[:, 2:] - truth[:, :2]
    annotations = [
        {"image_id": image_id, "category_id": int(label) + 1, "bbox": [*corner, *side]}
        | {"area": 0.6 * side[0] * side[1], "iscrowd": int(random.random() < 0.012)}
        for corner, side, label in zip(truth[:, :2].tolist(), sides.tolist(), labels, strict=True)
    ]
    near = np.repeat(truth, 3, 0) + random.normal(0, 0.1, (3 * count, 4)) * np.tile(np.repeat(sides, 3, 0), 2)
    rest = num_found - len(near)
    # most of the others are of classes that the picture has or seems to have
    likely = random.choice(np.concatenate((labels, random.choice(len(SHARES), 4, p=SHARES))), rest)
    other = np.where(random.random(rest) < 0.6, likely, random.choice(len(SHARES), rest, p=SHARES))
    boxes = np.concatenate((near, boxes_xyxy(random, rest)))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = np.concatenate((random.random(len(near)), 0.25 * random.random(rest)))
    best = np.argsort(-scores)
    return annotations, [np.concatenate((np.repeat(labels, 3), other))[best], boxes[best], scores[best]]


def dataset(folder: Path, num_pictures: int, num_found: int) -> tuple[Path, Detections]:
    """An annotation file and the detections [P, num_found] of its pictures, ids 0 to P - 1."""
    random = np.random.default_rng(0)
    made = [picture(random, image_id, num_found) for image_id in range(num_pictures)]
    side = {"width": SIDE_PX, "height": SIDE_PX}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", **side} for i in range(num_pictures)],
        "annotations": [a for annotations, _ in made for a in annotations],
        "categories": [{"id": i, "name": n} for i, n in zip(CLASSES.ids, CLASSES.names, strict=True)],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    labels, boxes, scores = (np.stack([found[k] for _, found in made]) for k in range(3))
    return path, Detections(
        torch.from_numpy(labels), torch.tensor(boxes).float(), torch.tensor(scores).float()
    )


def run(evaluator: CocoEvaluator, found: Detections) -> CocoMetrics:
    """One evaluation from its first batch to its numbers."""
    evaluator.reset()
    for start in range(0, len(found.labels), BATCH):
        batch = Detections(*(part[start : start + BATCH] for part in found))
        evaluator.update(range(start, start + len(batch.labels)), batch)
    return evaluator.compute()


def measure(num_pictures: int, num_found: int, backends: Sequence[Backend], way: Way) -> list[Row]:
    """The first backend for itself and against each other one, with how far their 12 numbers are apart."""
    with tempfile.TemporaryDirectory() as folder:
        path, found = dataset(Path(folder), num_pictures, num_found)
        truth = read_annotations(path, scored=True).stated
        assert truth is not None, "it was read to be scored"
        evaluators = {name: CocoEvaluator(path, CLASSES, truth, backend=name) for name in backends}
        metrics: dict[str, CocoMetrics] = {}
        calls = [lambda b=b, e=e: metrics.update({b: run(e, found)}) for b, e in evaluators.items()]
        times = interleaved(calls, repeats=way.rounds, warm_up=0, clock=CLOCKS[way.clock])
    work = f"scoring {num_pictures:,} pictures of {num_found} boxes"
    (first, *others), (ours, *medians) = backends, [statistics.median(seconds) for seconds in times]
    aim = LONGEST if num_pictures == COCO_PICTURES else None
    rows = [Row(f"{work}, {first}", "", ours, "s", aim, True, (ours,), *way)]
    expected = metrics[first].numbers()
    for other, median in zip(others, medians, strict=True):
        numbers = metrics[other].numbers()
        apart = max(abs(numbers[name] - expected[name]) for name in expected)
        told = f"{other}; the 12 numbers are {f'within {apart:.0e}' if apart else 'equal'}"
        rows.append(Row(work, told, median / ours, "x", None, False, (ours, median), *way))
    return rows


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, COCO_PICTURES])
    parser.add_argument("--detections", type=int, default=300, help="of a picture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backends", nargs="+", choices=get_args(Backend), help="also for many pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    described, way = machine(), Way(args.rounds, 1, "cpu")
    print(machine_line(described), flush=True)
    rows = []
    for num_pictures in args.pictures:
        backends = args.backends or [b for b in get_args(Backend) if b != SLOW or num_pictures <= 1000]
        rows += measure(num_pictures, args.detections, backends, way)
    report(described, rows, args.json)


if __name__ == "__main__":
    sys.exit(door.run(main))
