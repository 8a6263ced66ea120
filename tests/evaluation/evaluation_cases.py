"""Data for the evaluator's tests: the shared reference cases, a hand-made set, and a random one."""

import json
from pathlib import Path

import torch

from src.data import read_annotations
from src.evaluation import Backend, CocoEvaluator
from src.structures import Detections

EVAL_CASES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "eval_cases"


def evaluator_of(path: Path, backend: Backend = "numpy") -> CocoEvaluator:
    """An evaluator of a COCO file, read as a run reads it."""
    packed = read_annotations(path, scored=True)
    return CocoEvaluator(path, packed.classes, packed.stated, backend=backend)


def detections(rows: list[tuple[int, list[float], float]], dtype: torch.dtype = torch.float32) -> Detections:
    """A batch of one picture from (label, xyxy box, score)."""
    return Detections(
        torch.tensor([[row[0] for row in rows]], dtype=torch.int64).reshape(1, -1),
        torch.tensor([[row[1] for row in rows]], dtype=dtype).reshape(1, -1, 4),
        torch.tensor([[row[2] for row in rows]], dtype=dtype).reshape(1, -1),
    )


def load_case(name: str, dtype: torch.dtype) -> tuple[Path, dict[int, Detections]]:
    """Annotation file and the detections of every picture of a shared case."""
    ann_file = EVAL_CASES / name / "gt.json"
    content = json.loads(ann_file.read_text())
    label_of = {i: label for label, i in enumerate(sorted(c["id"] for c in content["categories"]))}
    rows = {image["id"]: [] for image in content["images"]}
    for row in json.loads((EVAL_CASES / name / "dt.json").read_text()):
        x, y, w, h = row["bbox"]
        rows[row["image_id"]].append((label_of[row["category_id"]], [x, y, x + w, y + h], row["score"]))
    return ann_file, {image: detections(found, dtype) for image, found in rows.items()}


def write_json(path: Path, images: list[int], objects: list[dict], num_classes: int = 1) -> None:
    """A COCO file with the least that is allowed: no `info`, `area`, `iscrowd`; category ids 10, 20, ..."""
    pictures = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in images]
    categories = [{"id": 10 * (k + 1), "name": f"class {k}"} for k in range(num_classes)]
    content = {"images": pictures, "annotations": objects, "categories": categories}
    path.write_text(json.dumps(content))


def random_case(path: Path, num_images: int = 30, num_classes: int = 4, num_found: int = 130):
    """Pictures with crowds, equal scores and more than 100 detections; written to `path`."""
    generator = torch.Generator().manual_seed(3)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    objects, batches = [], []
    for image in range(num_images):
        count = int(uniform(1) * 9)
        corner, size = uniform(count, 2) * 300, uniform(count, 2) ** 2 * 200 + 4
        labels = (uniform(count) * (num_classes - 1)).long()  # the last class has no object
        for box, label in zip(torch.cat((corner, size), 1).tolist(), labels.tolist(), strict=True):
            crowd = int(uniform(1) < 0.1)
            objects.append(
                {"id": len(objects), "image_id": 7 * image, "category_id": 10 * (label + 1), "bbox": box}
                | ({"iscrowd": crowd} if crowd else {})
            )
        near = torch.cat((corner, corner + size), 1).repeat(8, 1)
        near = near + (uniform(near.shape[0], 4) - 0.5) * 24
        far = uniform(num_found, 2) * 300
        boxes = torch.cat((near, torch.cat((far, far + uniform(num_found, 2) * 100 + 1), 1)))[:num_found]
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        own = torch.cat((labels.repeat(8), (uniform(num_found) * num_classes).long()))[:num_found]
        bonus = (torch.arange(num_found) < 8 * count) * 0.3  # those near an object score higher
        batches.append((own, boxes, ((uniform(num_found) * 0.7 + bonus) * 50).round() / 50))
    write_json(path, [7 * image for image in range(num_images)], objects, num_classes)
    labels, boxes, scores = (torch.stack(part) for part in zip(*batches, strict=True))
    return Detections(labels, boxes, scores)
