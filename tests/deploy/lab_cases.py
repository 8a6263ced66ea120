"""A real model of few parameters, as a checkpoint, and pictures in which it finds something."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lively import enliven
from PIL import Image

from src import assembly
from src.data import Origin
from src.deploy.detector import Detector
from src.solver.checkpoint import save_checkpoint
from src.structures import ClassNames

INPUT_HW = (72, 104)  # no multiple of 32 on either side
TINY = [
    f"eval_spatial_size=[{INPUT_HW[0]}, {INPUT_HW[1]}]",
    "keep_ratio=True",
    "DINOv3Backbone={embed_dim: 64, depth: 2, num_heads: 2, interaction_indexes: [0, 1]}",
    "DINOv3Backbone={out_channels: [32, 32, 32], detail_channels: 8}",
    "HybridEncoder={hidden_dim: 32, dim_feedforward: 64}",
    "DFINETransformer={hidden_dim: 32, dim_feedforward: 64, num_layers: 2, num_queries: 40}",
    "DFINEPostProcessor.num_top_queries=50",
]


class Lab(NamedTuple):
    """A real model of few parameters.

    Attributes:
        folder: Holds `best.pth`, and `plain.pth` of the same weights without a config.
        config: What it is built from, with `TINY`.
        detector: `best.pth`, loaded.
    """

    folder: Path
    config: Path
    detector: Detector


def make_lab(folder: Path, repo_root: Path, classes: ClassNames) -> Lab:
    """Write the checkpoints into `folder`."""
    config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
    torch.manual_seed(0)
    model, _, _, experiment = assembly.load_detector(config, None, [*TINY, "num_classes=3"])
    enliven(model)
    state = {"model": model.state_dict(), "classes": classes._asdict()}
    save_checkpoint(folder / "plain.pth", state)
    save_checkpoint(folder / "best.pth", {**state, "config": assembly.dump(experiment)})
    return Lab(folder, config, Detector.load(str(folder / "best.pth"), device="cpu"))


SIZES_HW = [(60, 90), (120, 70), (72, 104), (80, 80), (40, 90)]


def annotate(detector: Detector, folder: Path) -> Origin:
    """Pictures whose objects are near what the detector finds in them."""
    rng = np.random.default_rng(0)
    classes = detector.classes
    categories = [{"id": i, "name": n} for i, n in zip(classes.ids, classes.names, strict=True)]
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES_HW, 1):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        (found,) = detector(folder / "images" / f"{number}.png", 0.0)
        for row in range(0, 20, 2):
            x0, y0, x1, y1 = found.boxes[row].tolist()
            x0 += float(rng.uniform(0, 0.3)) * (x1 - x0)
            x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
            if x1 - x0 < 2 or y1 - y0 < 2:
                continue
            box = [x0, y0, x1 - x0, y1 - y0]
            category = classes.ids[int(found.labels[row])]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            annotations.append({**entry, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    path = folder / "objects.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return Origin(folder / "images", path)
