"""Scoring by COCO's measure: our arrays against the libraries, in turns, on the same made detections.

    python -m benchmarks.evaluation [--pictures 1000] [--rounds 3] [--backends numpy pycocotools]

COCO's val2017 has 5,000 pictures; pycocotools then takes minutes. A round is what a run does after its last
picture left the model: batches of 16 into `CocoEvaluator`, then `compute`. A library's round includes the
packing of detections into the dicts that it reads. Everything runs in one thread, so that the processor's
seconds, which are counted here, are a clock's on an idle machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from src.deploy.comparison.machine import this_machine
from src.deploy.comparison.timing import interleaved
from src.evaluation import Backend, CocoEvaluator, CocoMetrics
from src.structures import ClassNames, Detections

SIDE_PX, BATCH = 640, 16
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
    content = {
        "images": [{"id": image_id} for image_id in range(num_pictures)],
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


def main() -> None:
    """Measure, compare the numbers, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--detections", type=int, default=300, help="of a picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backends", nargs="+", choices=get_args(Backend), default=get_args(Backend))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(this_machine(torch.device("cpu")).line())
    with tempfile.TemporaryDirectory() as folder:
        path, found = dataset(Path(folder), args.pictures, args.detections)
        evaluators = [CocoEvaluator(path, CLASSES, backend=backend) for backend in args.backends]
        metrics: dict[str, CocoMetrics] = {}
        calls = [
            lambda e=e, b=b: metrics.update({b: run(e, found)})
            for e, b in zip(evaluators, args.backends, strict=True)
        ]
        times = interleaved(calls, repeats=args.rounds, warm_up=0, clock=time.process_time)
    first = metrics[args.backends[0]].numbers()
    print(f"{args.pictures:,} pictures, {args.detections} detections each, {args.rounds} rounds in turns")
    print(f"{'backend':<18}{'median s':>10}{'least s':>10}{'ratio':>8}  largest difference of the 12 numbers")
    rows = []
    for backend, seconds in zip(args.backends, times, strict=True):
        numbers = metrics[backend].numbers()
        difference = max(abs(numbers[name] - first[name]) for name in first)
        median = statistics.median(seconds)
        print(
            f"{backend:<18}{median:>10.2f}{min(seconds):>10.2f}"
            f"{median / statistics.median(times[0]):>8.2f}  {difference:.1e}"
        )
        rows.append({"backend": backend, "seconds": seconds, "difference": difference})
    if args.json is not None:
        args.json.write_text(json.dumps({"pictures": args.pictures, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
