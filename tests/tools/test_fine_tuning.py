"""A fine-tune from 80 classes to three, as a new user does it: the carried weights show in the first loss."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from src.solver.published_classes import COCO

CONFIG = "configs/dfine/dfine_dinov3_demo.yml"
SMALL = [
    "eval_spatial_size=[96, 96]",
    "DINOv3Backbone={embed_dim: 64, depth: 2, num_heads: 2, interaction_indexes: [0, 1]}",
    "DINOv3Backbone={out_channels: [64, 64, 64], detail_channels: 16}",
    "HybridEncoder={hidden_dim: 64, dim_feedforward: 128}",
    "DFINETransformer={hidden_dim: 64, dim_feedforward: 128, num_layers: 2}",
    "stages=[{start: 0}]",
    "lr_scheduler={type: MultiStepLR}",
    "ema={decay: 0.9, warmups: 10}",
    "train_dataloader.total_batch_size=4",
    "train_dataloader.dataset.transforms.ops=[{type: Resize}]",
    "train_dataloader.dataset.transforms.policy=null",
]
KIN = {1: "orange", 2: "donut", 3: "sports ball"}
"""What cells are called where only COCO's names are known: red and white ones, and platelets."""


def read(folder: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    return content


def cells_by_cocos_names(bccd: Path, known: set[str], num_pictures: int) -> dict[str, Any]:
    """Pictures of cells that are none of `known`, as a dataset of COCO's 80 categories."""
    content = read(bccd, "train")
    images = [image for image in content["images"] if image["file_name"] not in known][:num_pictures]
    chosen = {image["id"] for image in images}
    ids = dict(zip(COCO.names, COCO.ids, strict=True))
    annotations = [
        {**a, "category_id": ids[KIN[a["category_id"]]]}
        for a in content["annotations"]
        if a["image_id"] in chosen
    ]
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def train(
    repo_root: Path,
    output: Path,
    pictures: Path,
    annotations: Path,
    settings: list[str],
    flags: Sequence[str] = (),
) -> str:
    """Run train.py; gives what it said."""
    own = ["-c", CONFIG, "-d", "cpu", "--seed", "0", "--output-dir", str(output)]
    paths = [
        f"{split}_dataloader.dataset.{key}={path}"
        for split in ("train", "val")
        for key, path in (("img_folder", pictures), ("ann_file", annotations))
    ]
    done = subprocess.run(
        [sys.executable, "train.py", *own, *flags, "-u", *SMALL, *paths, *settings],
        capture_output=True,
        text=True,
        cwd=repo_root,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def first_loss(output: Path) -> float:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["kind"] == "train" and lines[0]["step"] == 1
    return float(lines[0]["loss"])


def fates(said: str) -> dict[str, int]:
    """The table of a fine-tune's tensors: how many were kept, mapped, made anew and dropped."""
    words = ("kept", "mapped by class name", "mean of its classes", "re-initialised", "dropped")
    return {
        word: int(line.removeprefix(word).split()[0])
        for word in words
        for line in said.splitlines()
        if line.startswith(word)
    }


@pytest.mark.slow  # the checkpoint learns first, 450 steps: minutes
def test_three_classes_from_a_checkpoint_of_80(repo_root: Path, shared: Path, tmp_path: Path) -> None:
    bccd, tiny = shared / "data" / "bccd", shared / "data" / "bccd_tiny"
    known = {image["file_name"] for split in ("train", "val") for image in read(tiny, split)["images"]}
    (tmp_path / "cells80.json").write_text(json.dumps(cells_by_cocos_names(bccd, known, 60)))
    learnt = ["num_classes=80", "epochs=30", "eval_every=30", "optimizer.lr=1e-3"]
    train(repo_root, tmp_path / "80", bccd / "images", tmp_path / "cells80.json", learnt)
    assert json.loads((tmp_path / "80" / "eval.json").read_text())["AP50"] > 0.5, "it has learnt nothing"

    annotations = {"own": tmp_path / "own.json", "kin": tmp_path / "kin.json"}
    content = read(tiny, "train")
    annotations["own"].write_text(json.dumps(content))
    content["categories"] = [{"id": i, "name": KIN[i].upper()} for i in (3, 2, 1)]
    annotations["kin"].write_text(json.dumps(content))
    once = ["num_classes=3", "epochs=1", "print_freq=1"]
    tune = ["-t", str(tmp_path / "80" / "last.pth")]
    said = {
        name: fates(train(repo_root, tmp_path / name, tiny / "images", annotations[name], once, tune))
        for name in annotations
    }
    train(repo_root, tmp_path / "fresh", tiny / "images", annotations["own"], once)

    # an encoder head and one of each of two decoder layers, with weight and bias, and denoising's table
    changed = {"mean of its classes": 6, "re-initialised": 1, "mapped by class name": 0}
    assert said["own"] == said["kin"] | changed
    assert said["kin"]["re-initialised"] == 0 and said["kin"]["mapped by class name"] == 7
    own, kin, fresh = (first_loss(tmp_path / name) for name in ("own", "kin", "fresh"))
    # of other names, boxes and features are carried over; of the same ones, what is an object too
    assert kin < 0.85 * fresh and kin < own < fresh, (own, kin, fresh)
