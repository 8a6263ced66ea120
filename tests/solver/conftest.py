"""A run that takes seconds: a few generated pictures and a tiny model of the real classes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from src.data.synthetic import DemoSettings, write_demo_dataset
from src.solver import recorder


@pytest.fixture
def reports() -> None:
    """Lets the runs of a test draw their reports."""


@pytest.fixture(autouse=True)
def no_reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests' runs draw none: it would take half of so short a run."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(recorder, "write_report", lambda *_, **__: None)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "dataset"
    write_demo_dataset(folder, DemoSettings(num_train=16, num_val=6, size=64, seed=3))
    return folder


def loader(dataset: Path, split: str, batch: int) -> dict[str, object]:
    ops: list[dict[str, object]] = [{"type": "Resize"}, {"type": "SanitizeBoundingBoxes", "min_size": 1}]
    if split == "train":
        ops.insert(0, {"type": "RandomPhotometricDistort", "p": 0.5})
        ops.insert(1, {"type": "RandomHorizontalFlip"})
    else:
        ops.pop()
    transforms: dict[str, object] = {"ops": ops}
    if split == "train":
        transforms["policy"] = {"ops": ["RandomPhotometricDistort"]}
    return {
        "dataset": {
            "img_folder": str(dataset / split),
            "ann_file": str(dataset / "annotations" / f"instances_{split}.json"),
            "transforms": transforms,
        },
        "total_batch_size": batch,
        "num_workers": 0,
        "shuffle": split == "train",
        "drop_last": split == "train",
    }


@pytest.fixture
def tiny_config(tiny_dataset: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a complete YAML; keyword arguments replace its top-level keys."""

    def write(**changes: object) -> Path:
        config: dict[str, object] = {
            "model": "DFINE",
            "criterion": "DFINECriterion",
            "postprocessor": "DFINEPostProcessor",
            "num_classes": 6,
            "eval_spatial_size": [64, 64],
            "output_dir": str(tmp_path / "output"),
            "epochs": 2,
            "seed": 0,
            "device": "cpu",
            "print_freq": 2,
            "optimizer": {
                "type": "AdamW",
                "lr": 1e-3,
                "weight_decay": 1e-4,
                "params": [{"params": r"^backbone\.vit\.", "lr": 1e-4}],
            },
            "ema": {"decay": 0.9, "warmups": 2},
            "DFINE": {
                "backbone": "DINOv3Backbone",
                "encoder": "HybridEncoder",
                "decoder": "DFINETransformer",
            },
            "DINOv3Backbone": {
                "pretrained": False,
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "layer_scale": 1.0,
                "out_channels": [32, 32, 32],
            },
            "HybridEncoder": {
                "hidden_dim": 32,
                "dim_feedforward": 32,
                "nhead": 2,
                "expansion": 0.34,
                "depth_mult": 0.34,
            },
            "DFINETransformer": {
                "hidden_dim": 32,
                "nhead": 2,
                "dim_feedforward": 32,
                "num_layers": 2,
                "num_queries": 12,
                "num_denoising": 6,
                "num_points": [2, 2, 2],
            },
            "DFINEPostProcessor": {"num_top_queries": 12},
            "DFINECriterion": {"matcher": {"type": "HungarianMatcher"}},
            "train_dataloader": loader(tiny_dataset, "train", 4),
            "val_dataloader": loader(tiny_dataset, "val", 4),
            **changes,
        }
        path = tmp_path / "tiny.yml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write
