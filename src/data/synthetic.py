"""The demo's dataset: pictures of textured shapes, made from a seed and written as COCO JSON and JPEG."""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .synthetic_drawing import Array, draw_background, draw_texture, shape_coverage

logger = logging.getLogger(__name__)

# with gaps, as real datasets have them
CATEGORIES = {1: "circle", 2: "square", 4: "triangle", 7: "star", 8: "ring", 11: "cross"}
SPLITS = ("train", "val")
VERSION = 1  # of the drawing: raised whenever the same settings would give other pictures
MARKER = "demo_dataset.json"

EMPTY_PROB = 0.08
MAX_OBJECTS = 12
MIN_VISIBLE = 0.55  # share of a shape that must be seen, in the picture and not hidden by others
MIN_SIDE = 10  # pixels, of what is seen
JPEG_QUALITY = 92
LICENCE_URL = "https://creativecommons.org/publicdomain/zero/1.0/"


class DemoSettings(NamedTuple):
    """What decides every byte of the demo's dataset.

    Attributes:
        num_train: Pictures to train on.
        num_val: Pictures held out.
        size: Sides are from 0.8 to 1.4 times this many pixels.
        seed: Of everything drawn.
    """

    num_train: int = 700
    num_val: int = 100
    size: int = 160
    seed: int = 0


class Shape(NamedTuple):
    """One labelled shape of a picture.

    Attributes:
        category_id: As in the JSON.
        bbox: (left, top, width, height) in pixels of what is seen of it.
        area: Pixels that are seen of it.
    """

    category_id: int
    bbox: tuple[int, int, int, int]
    area: int


class Scene:
    """A picture that shapes are laid onto, each in front of the ones before, none hiding another too far.

    Attributes:
        pixels: [H, W, 3] float32.
        owner: [H, W] int64, the number from 1 of the shape seen in each pixel, 0 for the background.
        shapes: Category id and full area in pixels of each shape.
    """

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels
        self.owner = np.zeros(pixels.shape[:2], dtype=np.int64)
        self.shapes: list[tuple[int, int]] = []

    def try_add(self, category_id: int, diameter: float, rng: np.random.Generator) -> bool:
        """Lay a shape at a random place, unless it or another would be too hidden there."""
        h, w = self.owner.shape
        coverage = shape_coverage(CATEGORIES[category_id], rng, diameter)
        n = coverage.shape[0]
        top = int(rng.integers(-n // 4, h - 3 * n // 4 + 1))
        left = int(rng.integers(-n // 4, w - 3 * n // 4 + 1))
        inside = np.s_[max(top, 0) : min(top + n, h), max(left, 0) : min(left + n, w)]
        patch = np.s_[max(-top, 0) : min(n, h - top), max(-left, 0) : min(n, w - left)]
        solid = coverage >= 0.5
        owner = self.owner.copy()
        owner[inside][solid[patch]] = len(self.shapes) + 1
        full = np.array([area for _, area in self.shapes] + [int(solid.sum())])
        seen = np.bincount(owner.ravel(), minlength=len(full) + 1)[1:]
        if (seen < MIN_VISIBLE * full).any():
            return False
        self.owner = owner
        self.shapes.append((category_id, int(solid.sum())))
        texture = draw_texture(n, rng, behind=self.pixels[inside].mean((0, 1)))
        alpha = coverage[patch][..., None]
        self.pixels[inside] = alpha * texture[patch] + (1 - alpha) * self.pixels[inside]
        return True

    def labelled(self) -> list[Shape]:
        """What is seen of each shape, in the order of laying."""
        found = []
        for number, (category_id, _) in enumerate(self.shapes, start=1):
            rows, columns = np.nonzero(self.owner == number)
            left, top = int(columns.min()), int(rows.min())
            bbox = (left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)
            found.append(Shape(category_id, bbox, len(rows)))
        return found


def draw_scene(size: int, rng: np.random.Generator) -> tuple[Image.Image, list[Shape]]:
    """One picture with 0 to 12 labelled shapes."""
    h, w = (int(rng.integers(round(0.8 * size), round(1.4 * size) + 1)) for _ in range(2))
    scene = Scene(draw_background(h, w, rng))
    wanted = 0 if rng.random() < EMPTY_PROB else int(rng.integers(1, MAX_OBJECTS + 1))
    smallest = max(0.15 * size, 1.6 * MIN_SIDE)
    largest = max(min(h, w) * min(0.55, 1.1 / max(wanted, 1) ** 0.5), 1.2 * smallest)
    for _ in range(6 * wanted):
        if len(scene.shapes) == wanted:
            break
        diameter = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        scene.try_add(int(rng.choice(list(CATEGORIES))), diameter, rng)
    pixels = np.clip(scene.pixels + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), scene.labelled()


def write_demo_dataset(output: Path, settings: DemoSettings) -> bool:
    """Write `annotations/instances_{train,val}.json`, `train/` and `val/` under `output`, all or nothing.

    Args:
        output: A folder that does not exist, is empty, or was written by this function: one that has the same
            settings is left as it is, one that has others is replaced.
        settings: What to draw.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: A setting out of range, or `output` holds something else.
    """
    if settings.num_train < 1 or settings.num_val < 1 or settings.size < 64 or settings.seed < 0:
        raise ValueError(
            f"demo dataset: at least 1 picture of each kind, size 64 and seed 0 are allowed, got {settings}"
        )
    marker = {"version": VERSION, **settings._asdict()}
    if (output / MARKER).is_file():
        if json.loads((output / MARKER).read_text()) == marker:
            logger.info("the demo dataset in %s has these settings already", output)
            return False
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} holds something that is not the demo dataset; choose another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        made = Path(temporary, "made")
        for split in SPLITS:
            _write_split(made, split, settings)
        (made / MARKER).write_text(json.dumps(marker))
        made.chmod(0o755)
        if output.exists():
            os.replace(output, Path(temporary, "old"))
        os.replace(made, output)
    return True


def _write_split(folder: Path, split: str, settings: DemoSettings) -> None:
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    count = settings.num_train if split == "train" else settings.num_val
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        image, shapes = draw_scene(
            settings.size, np.random.default_rng([settings.seed, SPLITS.index(split), number])
        )
        name = f"{number:06d}.jpg"
        image.save(folder / split / name, quality=JPEG_QUALITY)
        images.append(
            {"id": number, "file_name": name, "width": image.width, "height": image.height, "license": 1}
        )
        for shape in shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": shape.category_id,
                    "bbox": list(shape.bbox),
                    "area": shape.area,
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {"description": f"Textured shapes, {split}", "version": str(VERSION), **settings._asdict()},
        "licenses": [
            {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
        ],
        "categories": [{"id": i, "name": n, "supercategory": "shape"} for i, n in CATEGORIES.items()],
        "images": images,
        "annotations": annotations,
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
