"""A small COCO dataset on disk, in parts that a test can break."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
from PIL import Image

from src.data import CocoDetection, build_pipeline

# a busy machine may pause any test for longer than the default of 200 ms
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")

STRONG = ("RandomPhotometricDistort", "RandomZoomOut", "RandomIoUCrop")
RECIPE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("RandomPhotometricDistort", {"p": 0.5}),
    ("RandomZoomOut", {"fill": 0}),
    ("RandomIoUCrop", {"p": 0.8}),
    ("SanitizeBoundingBoxes", {"min_size": 1}),
    ("RandomHorizontalFlip", {}),
    ("Resize", {}),
    ("SanitizeBoundingBoxes", {"min_size": 1}),
    ("ConvertPILImage", {"dtype": "float32", "scale": True}),
    ("Normalize", {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}),
    ("ConvertBoxes", {"fmt": "cxcywh", "normalize": True}),
)
PLAIN = (("Resize", {}), ("ConvertPILImage", {}))


class Disk(NamedTuple):
    """Where the dataset lies, and its JSON before it is written."""

    folder: Path
    document: dict[str, Any]

    @property
    def json(self) -> Path:
        return self.folder / "instances.json"

    def write(self) -> Path:
        self.json.write_text(json.dumps(self.document))
        return self.json

    def dataset(self, ops: Sequence[tuple[str, Mapping[str, Any]]] = PLAIN, **options: Any) -> CocoDetection:
        strong = tuple(name for name, _ in ops if name in STRONG)
        return CocoDetection(
            self.folder / "images", self.write(), build_pipeline(ops, strong, (64, 96)), **options
        )


@pytest.fixture
def make_disk(tmp_path: Path) -> Callable[[int], Disk]:
    """Makes pictures of 50x80 (height x width), each with a box 10 x 20 at (4 + its number, 6)."""

    def make(num_pictures: int) -> Disk:
        (tmp_path / "images").mkdir()
        images, annotations = [], []
        for k in range(num_pictures):
            pixels = np.random.default_rng(k).integers(0, 256, (50, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{k}.png")
            images.append({"id": 100 + k, "file_name": f"{k}.png", "width": 80, "height": 50})
            annotations.append(
                {
                    "id": k + 1,
                    "image_id": 100 + k,
                    "category_id": 9,
                    "bbox": [4 + k % 60, 6, 10, 20],
                    "area": 200,
                }
            )
        categories = [{"id": 9, "name": "nine"}, {"id": 2, "name": "two"}, {"id": 5, "name": "five"}]
        return Disk(tmp_path, {"images": images, "annotations": annotations, "categories": categories})

    return make


@pytest.fixture
def disk(make_disk: Callable[[int], Disk]) -> Disk:
    return make_disk(3)


@pytest.fixture
def recipe() -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """D-FINE's training transforms."""
    return RECIPE
