"""A run through its stages: what is frozen does not move, and ranks agree after every release."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn

from src import assembly
from src.solver import trainer as trainer_module

FEW_STEPS = ["train_dataloader.total_batch_size=8"]  # two an epoch
STAGES = [
    {"start": 0, "backbone": "frozen"},
    {"start": 1, "unfreeze_blocks": 2, "unfreeze_lr_factor": 1.0},
    {"start": 3, "strong_augmentation": False, "ema_restart_decay": 0.8},
]
SECTION = {
    "pretrained": False,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "layer_scale": 1.0,
    "out_channels": [32, 32, 32],
}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_parameters()}


def run(config: Path) -> list[dict[str, Tensor]]:
    """Train; the weights before each epoch, ere ranks are made equal, and after the last."""
    kept: list[dict[str, Tensor]] = []
    release = trainer_module.release_backbone

    def keep(model: nn.Module, *rest: Any) -> None:
        kept.append(weights_of(model))
        release(model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "release_backbone", keep)
        trainer = assembly.build_trainer(assembly.load(config, FEW_STEPS), torch.device("cpu"))
        trainer.fit()
    return [*kept, weights_of(trainer.model)]


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Parts of the ViT that differ in any bit."""
    names = [
        name.removeprefix("backbone.vit.") for name in before if not torch.equal(before[name], after[name])
    ]
    return {
        ".".join(name.split(".")[:2]) if name.startswith("blocks") else name.split(".")[0] for name in names
    }


@pytest.fixture
def staged(tiny_config: Callable[..., Path]) -> Path:
    return tiny_config(DINOv3Backbone=SECTION, stages=STAGES, epochs=4, eval_every=4)


def test_what_is_frozen_keeps_every_bit(staged: Path) -> None:
    weights = run(staged)
    steps = [moved(before, after) for before, after in zip(weights, weights[1:], strict=False)]
    others = {"backbone", "encoder", "decoder"}
    assert steps == [
        others,
        others | {"blocks.2", "norm"},
        others | {"blocks.2", "blocks.1", "norm"},
        others | {"blocks.2", "blocks.1", "norm"},
    ]
    assert any(name.startswith("backbone.sta.") for name in weights[0])


def run_on_rank(_rank: int, config: Path) -> Any:
    return run(config)


@pytest.mark.dist
def test_ranks_hold_the_same_weights_after_every_release(staged: Path, tmp_path: Path) -> None:
    one, two = on_ranks(run_on_rank, 2, tmp_path, staged)
    for epoch, (a, b) in enumerate(zip(one[1:], two[1:], strict=True)):
        assert [name for name in a if not torch.equal(a[name], b[name])] == [], epoch
    assert moved(one[0], one[-1]) >= {"blocks.2", "blocks.1"}
