"""What several doors are tried on."""

from pathlib import Path

import pytest
import torch

from src import assembly
from src.solver.checkpoint import save_checkpoint

NAMES, IDS = ["ant", "bee", "cow"], [2, 3, 90]
TINY = [
    "num_classes=3",
    "eval_spatial_size=[64, 64]",
    "DINOv3Backbone={embed_dim: 64, depth: 1, num_heads: 2, interaction_indexes: [0]}",
    "DINOv3Backbone={out_channels: [16, 16, 16], detail_channels: 8}",
    "HybridEncoder={hidden_dim: 16, dim_feedforward: 32}",
    "DFINETransformer={hidden_dim: 16, dim_feedforward: 32, num_layers: 1, num_queries: 20}",
    "DFINEPostProcessor.num_top_queries=20",
]


@pytest.fixture(scope="module")
def checkpoint(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`best.pth` of a small detector of 64 x 64 pixels with random weights, as training writes it."""
    torch.manual_seed(0)
    model, _, _, experiment = assembly.load_detector(
        repo_root / "configs/dfine/dfine_dinov3_demo.yml", None, TINY
    )
    path = tmp_path_factory.mktemp("run") / "best.pth"
    state = {"model": model.state_dict(), "classes": {"names": NAMES, "ids": IDS}}
    save_checkpoint(path, {**state, "config": assembly.dump(experiment)})
    return path
