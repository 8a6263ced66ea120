"""A real model of few parameters, as a checkpoint."""

from pathlib import Path
from typing import NamedTuple

import torch

from src import assembly
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
    state = {"model": model.state_dict(), "classes": classes._asdict()}
    save_checkpoint(folder / "plain.pth", state)
    save_checkpoint(folder / "best.pth", {**state, "config": assembly.dump(experiment)})
    return Lab(folder, config, Detector.load(str(folder / "best.pth"), device="cpu"))
