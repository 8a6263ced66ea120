"""Evaluations for the report's tests, through the real evaluator."""

import numpy as np
import torch
from PIL import Image

from src.evaluation import CocoEvaluator, Scored
from src.structures import ClassNames, Detections, GroundTruth

Box = list[float]
"""Left, top, width and height in pixels."""

NASTY_NAMES = (
    "<script>alert(1)</script>",
    "猫 & 狗",
    "$x_{$",
    "_hidden",
    'a "b"\nc',
    "\ud800 lone",
    "x" * 300,
    "\u202eabc",
)


def scored(
    objects: list[tuple[int, int, Box]],
    found: list[tuple[int, int, Box, float]],
    *,
    num_images: int,
    names: tuple[str, ...] = ("cat", "dog"),
    crowds: tuple[int, ...] = (),
) -> Scored:
    """What an evaluator scored: objects as (picture, label, box), detections with a score at the end."""
    boxes_xywh_px = np.array([box for _, _, box in objects], np.float64).reshape(-1, 4)
    truth = GroundTruth(
        np.arange(num_images),
        np.array([image for image, _, _ in objects], np.int64),
        np.array([label for _, label, _ in objects], np.int64),
        boxes_xywh_px,
        boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3],
        np.isin(np.arange(len(objects)), crowds),
    )
    evaluator = CocoEvaluator("gt.json", ClassNames(names, tuple(range(1, len(names) + 1))), truth)
    of_image: dict[int, list[tuple[int, int, Box, float]]] = {image: [] for image in range(num_images)}
    for row in found:
        of_image[row[0]].append(row)
    for image, own in of_image.items():
        boxes = torch.tensor([[x, y, x + w, y + h] for _, _, (x, y, w, h), _ in own], dtype=torch.float64)
        labels = torch.tensor([row[1] for row in own], dtype=torch.int64)
        scores = torch.tensor([row[3] for row in own], dtype=torch.float64)
        evaluator.update([image], Detections(labels[None], boxes.reshape(1, -1, 4), scores[None]))
    evaluator.compute()
    assert evaluator.scored is not None
    return evaluator.scored


def random_scored(
    *, seed: int = 0, num_images: int = 20, names: tuple[str, ...] = ("cat", "dog", "cow", "hen")
) -> Scored:
    """Objects and detections of every kind: right, shifted, of another class, twice, and nowhere near."""
    random = np.random.default_rng(seed)
    count = 4 * num_images
    images, labels = random.integers(0, num_images, count), random.integers(0, len(names), count)
    boxes = np.concatenate((random.random((count, 2)) * 120, 16 + random.random((count, 2)) * 60), 1)
    source = random.integers(0, count, 3 * count)
    moved = boxes[source] + (random.random((3 * count, 4)) - 0.5) * random.choice([3, 20, 60], (3 * count, 1))
    moved[:, 2:] = moved[:, 2:].clip(4)
    others = random.integers(0, len(names), 3 * count)
    found_labels = np.where(random.random(3 * count) < 0.75, labels[source], others)
    columns = (images[source], found_labels, moved, random.random(3 * count))
    return scored(
        list(zip(images.tolist(), labels.tolist(), boxes.tolist(), strict=True)),
        list(zip(*(column.tolist() for column in columns), strict=True)),
        num_images=num_images,
        names=names,
    )


def pictures(image_id: int) -> tuple[str, Image.Image]:
    """A picture of any id."""
    return f"folder/<b>{image_id}</b>.jpg", Image.new("RGB", (200, 150), (90, 30 + image_id % 200, 60))
