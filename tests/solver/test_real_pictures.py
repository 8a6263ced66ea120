"""Real pictures: a small detector learns 12 of them by heart (`pytest -m slow tests/solver`, minutes)."""

import json
from pathlib import Path

import pytest
import torch

from src import assembly, runs

NUM_PICTURES = 12


@pytest.fixture
def pictures(shared: Path, tmp_path: Path) -> list[str]:
    """Overrides that train and evaluate on the first 12 training pictures of coco_free_tiny."""
    folder = shared / "data" / "coco_free_tiny"
    coco = json.loads((folder / "annotations" / "instances_train.json").read_text())
    coco["images"] = coco["images"][:NUM_PICTURES]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    (tmp_path / "twelve.json").write_text(json.dumps(coco))
    return [
        f"{loader}.dataset.{key}={value}"
        for loader in ("train_dataloader", "val_dataloader")
        for key, value in (("img_folder", folder / "images"), ("ann_file", tmp_path / "twelve.json"))
    ]


@pytest.mark.slow
def test_twelve_pictures_are_learnt_by_heart(repo_root: Path, tmp_path: Path, pictures: list[str]) -> None:
    experiment = assembly.load(
        repo_root / "configs" / "dfine" / "dfine_dinov3_demo.yml",
        [
            *pictures,
            "num_classes=80",
            "eval_spatial_size=[256,256]",
            f"output_dir={tmp_path / 'output'}",
            "seed=0",
            "epochs=240",
            "eval_every=80",
            "stages=[{start: 0}]",
            "train_dataloader.dataset.transforms.ops=[{type: Resize}, {type: ConvertPILImage}]",
            "train_dataloader.dataset.transforms.policy=null",
            "optimizer.lr=1e-3",
            "lr_scheduler.flat_epochs=120",
            "train_dataloader.total_batch_size=4",
            "DFINETransformer.num_queries=100",
            "DFINEPostProcessor.num_top_queries=100",
        ],
    )
    runs.train(experiment, torch.device("cpu"))
    numbers = json.loads((tmp_path / "output" / "eval.json").read_text())
    assert numbers["AP50"] >= 0.90


def test_bccd_trains_with_the_custom_dataset_file(repo_root: Path, tmp_path: Path, shared: Path) -> None:
    configs = repo_root / "configs"
    mine = tmp_path / "mine.yml"
    files = (configs / "dfine" / "dfine_dinov3_demo.yml", configs / "dataset" / "custom_detection.yml")
    mine.write_text(f"__include__: [{files[0]}, {files[1]}]\n")
    bccd = shared / "data" / "bccd"
    overrides = [
        f"{split}_dataloader.dataset.{key}"
        for split in ("train", "val")
        for key in (
            f"img_folder={bccd / 'images'}",
            f"ann_file={bccd / 'annotations' / f'instances_{split}.json'}",
        )
    ]
    overrides += ["num_classes=3", "eval_spatial_size=[64,64]", f"output_dir={tmp_path / 'output'}"]
    overrides += ["seed=0", "print_freq=2", "epochs=1", "stages=[{start: 0}]"]
    overrides += ["lr_scheduler={type: MultiStepLR}", "DINOv3Backbone.depth=2"]
    overrides += ["DINOv3Backbone.interaction_indexes=[1]"]
    overrides += ["train_dataloader.num_workers=0", "val_dataloader.num_workers=0"]
    runs.train(assembly.load(mine, overrides), torch.device("cpu"))
    checkpoint = torch.load(tmp_path / "output" / "last.pth", weights_only=True)
    assert checkpoint["classes"]["names"] == ["RBC", "WBC", "Platelets"]
    lines = (tmp_path / "output" / "metrics.jsonl").read_text().splitlines()
    first, last = (json.loads(line)["loss_bbox"] for line in (lines[0], lines[-2]))
    assert last < first
