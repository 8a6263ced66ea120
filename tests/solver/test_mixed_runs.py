"""Runs through DEIM's four phases: mixed pictures and the MAL loss, stopped and resumed too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import STEPS_PER_EPOCH, ask_to_stop_in_step, train

from benchmarks.faults import differences
from src import assembly
from src.data import TrainLoader
from src.door import Interrupted
from src.solver.preview import preview
from src.solver.stages import augmentation, plan_stages, stages_table

Config = Callable[..., Path]
PLAN: dict[str, Any] = {
    "epochs": 4,
    "print_freq": 1,
    "eval_every": 4,
    "checkpoint_step_freq": 0,
    "DFINECriterion": {"losses": ["mal", "boxes", "local"], "matcher": {"type": "HungarianMatcher"}},
    "stages": [
        {"start": 0, "strong_augmentation": False},
        {"start": 1, "strong_augmentation": True, "mosaic": 0.5, "mixup": 0.5, "copyblend": 0.5},
        {"start": 2, "mosaic": 0.0, "mixup": 0.0},
        {"start": 3, "strong_augmentation": False},
    ],
}


@pytest.fixture
def four_phases(tiny_config: Config) -> Path:
    return tiny_config(**PLAN)


def test_each_phase_mixes_as_planned_with_finite_losses(
    four_phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    asked: list[tuple[bool, ...]] = []
    set_epoch = TrainLoader.set_epoch

    def noted(self: TrainLoader, epoch: int, **rest: Any) -> None:
        asked.append((rest["strong_augmentation"], *rest["chances"]))
        set_epoch(self, epoch, **rest)

    monkeypatch.setattr(TrainLoader, "set_epoch", noted)
    folder = train(four_phases, tmp_path / "run")
    assert asked == [(False, 0, 0, 0), (True, 0.5, 0.5, 0.5), (True, 0, 0, 0.5), (False, 0, 0, 0)]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert len(steps) == 4 * STEPS_PER_EPOCH
    assert all(torch.tensor(list(line.values())[1:]).isfinite().all() for line in steps)
    assert "loss_mal" in steps[0] and "loss_mal_dn_pre" in steps[0] and "loss_vfl" not in steps[0]
    assert "strong, mosaic 0.5, mixup 0.5, copyblend 0.5" in caplog.text


def test_a_run_stopped_among_mixed_pictures_ends_as_an_undisturbed_one(
    four_phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(four_phases, tmp_path / "whole")
    cut = tmp_path / "cut"
    for number, step in enumerate((6, 10)):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            ask_to_stop_in_step(patch, step)
            train(four_phases, cut, f"train_dataloader.num_workers={number % 2}", resume="auto")
    train(four_phases, cut, "mixing.cache_mb=0", resume="auto")
    assert differences(cut, whole) == []


def test_the_config_has_deims_plan(repo_root: Path) -> None:
    experiment = assembly.load(repo_root / "configs" / "dfine" / "deim" / "dfine_dinov3_s_deim_coco.yml")
    stages = plan_stages(experiment.stages, epochs=experiment.epochs, num_blocks=12)
    told = [line.split("  ")[0] for line in stages_table(stages).splitlines()[1:]]
    assert told == ["0-3", "4-33", "34-59", "60-67"]
    assert [augmentation(stage) for stage in stages] == [
        "plain",
        "strong, mosaic 0.5, mixup 0.5, copyblend 0.5",
        "strong, copyblend 0.5",
        "plain",
    ]
    assert {s.backbone for s in stages} == {"all"} and experiment.components["DFINECriterion"]["losses"][
        0
    ] == "mal"


def test_a_preview_shows_the_epochs_own_batch(four_phases: Path) -> None:
    experiment = assembly.load(four_phases)
    model = assembly.build_model(experiment)
    sheets = {}
    for epoch in (0, 1, 3):
        batches = assembly.build_loader(experiment, torch.device("cpu"), model)
        sheets[epoch], told = preview(experiment, model, batches, epoch)
        assert ("mosaic 0.5" in told) == (epoch == 1)
    assert sheets[0].size == (2 * 320 + 4, 2 * 320 + 4)  # four pictures of 64 x 64, five times as large
    assert sheets[0].tobytes() != sheets[3].tobytes()
    again, _ = preview(experiment, model, batches, 0)
    assert again.tobytes() == sheets[0].tobytes()
    with pytest.raises(ValueError, match="epoch 4 does not come: the run has epochs 0 to 3"):
        preview(experiment, model, batches, 4)
