"""Whole runs of a tiny model through the same door that users take."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from src import assembly, runs
from src.nn.backbone import DINOv3Backbone
from src.solver.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

Config = Callable[..., Path]
CPU = torch.device("cpu")


def train(config: Path, *overrides: str, **start: str) -> Path:
    experiment = assembly.load(config, overrides)
    runs.train(experiment, CPU, **start)
    return Path(experiment.output_dir)


def weights(path: Path, part: str = "model") -> dict[str, Tensor]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint["ema"]["module"] if part == "ema" else checkpoint[part]  # type: ignore[no-any-return]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def test_a_run_leaves_what_it_promises(tiny_config: Config) -> None:
    folder = train(tiny_config())
    for name in (
        "last.pth",
        "best.pth",
        "config.yml",
        "metrics.jsonl",
        "eval.json",
        "curves.png",
        "log.txt",
        "summary",
    ):
        assert (folder / name).exists(), name
    steps = [line["step"] for line in losses(folder)]
    assert steps == [2, 4, 6, 8]
    assert {"loss_vfl", "loss_bbox", "loss_giou", "loss_fgl", "lr"} <= losses(folder)[0].keys()
    assert assembly.load(folder / "config.yml") == assembly.load(folder.parent / "tiny.yml")
    checkpoint = torch.load(folder / "last.pth", weights_only=True)
    assert checkpoint["classes"]["ids"] == [1, 2, 4, 7, 8, 11]


def test_the_log_and_the_evaluation_agree_with_test_only(tiny_config: Config) -> None:
    folder = train(tiny_config())
    written = json.loads((folder / "eval.json").read_text())
    experiment = assembly.load(folder.parent / "tiny.yml")
    metrics = runs.test(experiment, CPU, checkpoint=str(folder / "last.pth"))
    assert metrics.to_dict() == written


def test_training_learns(tiny_config: Config) -> None:
    overrides = [
        "epochs=15",
        "eval_every=15",
        "optimizer.params=[]",
        "optimizer.lr=4e-3",
        "clip_max_norm=2.0",
    ]
    folder = train(tiny_config(), *overrides, "DINOv3Backbone.detail_channels=8")
    first, last = losses(folder)[:4], losses(folder)[-4:]  # single lines are of two steps: noisy
    for name in ("loss", "loss_bbox", "loss_giou", "loss_vfl_dn_1"):
        assert sum(line[name] for line in last) < 0.9 * sum(line[name] for line in first), name


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tiny_config: Config, tmp_path: Path
) -> None:
    config = tiny_config()
    one = train(config, f"output_dir={tmp_path / 'one'}", "epochs=1")
    two = train(config, f"output_dir={tmp_path / 'two'}", "epochs=1", "train_dataloader.num_workers=2")
    other = train(config, f"output_dir={tmp_path / 'other'}", "epochs=1", "seed=1")
    assert_same(weights(one / "last.pth"), weights(two / "last.pth"))
    with pytest.raises(AssertionError):
        assert_same(weights(one / "last.pth"), weights(other / "last.pth"))


def test_a_resumed_run_keeps_the_seed_that_was_drawn(tiny_config: Config) -> None:
    folder = train(tiny_config(seed=None), "epochs=1")
    seed = yaml.safe_load((folder / "config.yml").read_text())["seed"]
    assert isinstance(seed, int)
    train(folder.parent / "tiny.yml", "epochs=2", resume=str(folder / "last.pth"))
    assert yaml.safe_load((folder / "config.yml").read_text())["seed"] == seed
    assert torch.load(folder / "last.pth", weights_only=True)["rng"].keys() == {
        "python",
        "numpy",
        "torch",
        "cuda",
    }


def test_a_frozen_backbone_keeps_its_weights_and_the_adapter_learns(tiny_config: Config) -> None:
    config = tiny_config(stages=[{"start": 0, "backbone": "frozen"}, {"start": 1, "backbone": 1}])
    trainer = assembly.build_trainer(assembly.load(config), CPU)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    after: list[dict[str, Tensor]] = []
    save = trainer._save

    def keep(**which: bool) -> None:
        after.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        save(**which)

    trainer._save = keep  # type: ignore[method-assign]
    trainer.fit()
    vit = [name for name, _ in trainer.model.named_parameters() if name.startswith("backbone.vit.")]
    adapter = [name for name, _ in trainer.model.named_parameters() if name.startswith("backbone.sta.")]
    assert all(torch.equal(after[0][name], start[name]) for name in vit)
    assert all(not torch.equal(after[0][name], start[name]) for name in adapter)
    moved = {name for name in vit if not torch.equal(after[1][name], start[name])}
    assert moved
    assert all(name.startswith(("backbone.vit.blocks.1.", "backbone.vit.norm.")) for name in moved)


def test_pictures_without_any_object_train(tiny_config: Config, tiny_dataset: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"  # but for one box: three of the four batches have none
    coco = json.loads((tiny_dataset / "annotations" / "instances_train.json").read_text())
    empty.write_text(json.dumps({**coco, "annotations": coco["annotations"][:1]}))
    folder = train(tiny_config(), f"train_dataloader.dataset.ann_file={empty}", "epochs=1")
    assert all(line["loss"] >= 0 for line in losses(folder))


def test_accumulated_steps_count_as_one(tiny_config: Config) -> None:
    folder = train(tiny_config(), "accumulate_steps=2", "epochs=1", "print_freq=1")
    assert [line["step"] for line in losses(folder)] == [1, 2]


def test_tuning_starts_from_the_weights(tiny_config: Config, tmp_path: Path) -> None:
    folder = train(tiny_config())
    tuned = assembly.load(tmp_path / "tiny.yml", [f"output_dir={tmp_path / 'tuned'}"])
    trainer = assembly.build_trainer(tuned, CPU, tune=str(folder / "last.pth"))
    assert_same(dict(trainer.model.state_dict()), weights(folder / "last.pth", "ema"))


def test_tuning_a_model_whose_backbone_is_not_in_the_file_needs_its_weights(
    tiny_config: Config, tmp_path: Path
) -> None:
    checkpoint = torch.load(train(tiny_config(), "epochs=1") / "last.pth", weights_only=True)
    for part in (checkpoint["model"], checkpoint["ema"]["module"]):
        for name in [n for n in part if n.startswith("backbone.vit.")]:
            del part[name]
    save_checkpoint(tmp_path / "headless.pth", checkpoint)
    section = {"pretrained": True, "checkpoint_path": "/nowhere.pth", "out_channels": [32, 32, 32]}
    experiment = assembly.load(tiny_config(DINOv3Backbone=section))
    with pytest.raises(ValueError, match="/nowhere.pth"):
        assembly.build_trainer(experiment, CPU, tune=str(tmp_path / "headless.pth"))


def test_a_resumed_run_obeys_a_new_learning_rate(tiny_config: Config) -> None:
    folder = train(tiny_config(), "epochs=1")
    changed = assembly.load(folder.parent / "tiny.yml", ["optimizer.lr=7e-5"])
    stored = Checkpoint(folder / "last.pth", read_checkpoint(folder / "last.pth"))
    trainer = assembly.build_trainer(changed, CPU, resume=stored)
    assert [group["lr"] for group in trainer.step.optimizer.param_groups] == [1e-4, 7e-5]  # of its first step
    trainer.fit()
    assert losses(folder)[-1]["lr_1"] == pytest.approx(7e-5)


@pytest.mark.parametrize(
    "overrides",
    [["use_amp=True", "amp.dtype=bfloat16"], ["use_amp=True", "amp.dtype=float16"], ["use_ema=False"]],
)
def test_precision_and_average_can_be_chosen(tiny_config: Config, overrides: list[str]) -> None:
    folder = train(tiny_config(), "epochs=1", *overrides)
    assert all(0 < line["loss"] < 100 for line in losses(folder))
    checkpoint = torch.load(folder / "last.pth", weights_only=True)
    assert (checkpoint["ema"] is None) == (overrides == ["use_ema=False"])
    assert all(value.isfinite().all() for value in checkpoint["model"].values())


def test_a_stage_sets_the_rate_of_the_backbone(tiny_config: Config) -> None:
    stages = "stages=[{start: 0}, {start: 1, backbone_lr_factor: 0.5}]"
    folder = train(tiny_config(), stages, "print_freq=1")
    rates = {line["epoch"]: (line["lr_0"], line["lr_1"]) for line in losses(folder)}
    assert rates[0] == pytest.approx((1e-4, 1e-3))
    assert rates[1] == pytest.approx((5e-5, 1e-3))
    with pytest.raises(ValueError, match="backbone_lr_factor"):
        train(tiny_config(), stages, "optimizer.params=[]")


def test_tensorboard_holds_losses_rates_scores_and_pictures(tiny_config: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(tiny_config(), "epochs=1")
    events = EventAccumulator(str(folder / "summary"))
    events.Reload()
    assert {"loss", "loss_vfl", "loss_bbox", "loss_ddf_aux_0", "lr_0", "AP", "AP50"} <= set(
        events.Tags()["scalars"]
    )
    assert events.Tags()["images"] == ["detections"]
    log = (folder / "log.txt").read_text()
    assert "parameter groups" in log
    assert "backbone" in log


def torchrun(config: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [*command, "train.py", "-c", str(config), *arguments],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.dist
def test_two_processes_equal_one(tiny_config: Config, tmp_path: Path) -> None:
    # denoising draws per process and groups by the local batch, so it is off where sums are compared
    config = tiny_config()
    overrides = ["DFINETransformer.num_denoising=0", "epochs=1", "print_freq=1"]
    one = train(config, *overrides, f"output_dir={tmp_path / 'one'}")
    run = torchrun(config, 2, "-u", *overrides, f"output_dir={tmp_path / 'two'}")
    assert run.returncode == 0, run.stderr
    for a, b in zip(losses(one), losses(tmp_path / "two"), strict=True):
        assert a.pop("kind") == b.pop("kind")
        assert b == pytest.approx(a, rel=1e-3, abs=1e-4)
    for part in ("model", "ema"):
        ours, theirs = (weights(folder / "last.pth", part) for folder in (one, tmp_path / "two"))
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=2e-5, msg=f"{part} {name}")


@pytest.mark.dist
def test_three_processes_evaluate_to_the_same_numbers(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config()
    folder = train(config)
    alone = json.loads((folder / "eval.json").read_text())
    # 6 pictures in batches of 4: two for each process
    output = tmp_path / "three"
    run = torchrun(config, 3, "--test-only", "-r", str(folder / "last.pth"), "--output-dir", str(output))
    assert run.returncode == 0, run.stderr
    assert json.loads((output / "eval.json").read_text()) == alone


@pytest.mark.dist
def test_one_rank_without_objects_does_not_hang(
    tiny_config: Config, tiny_dataset: Path, tmp_path: Path
) -> None:
    coco = json.loads((tiny_dataset / "annotations" / "instances_train.json").read_text())
    kept = coco["annotations"][0]["image_id"]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] == kept]
    (tmp_path / "one.json").write_text(json.dumps(coco))
    run = torchrun(
        tiny_config(), 2, "-u", f"train_dataloader.dataset.ann_file={tmp_path / 'one.json'}", "epochs=1"
    )
    assert run.returncode == 0, run.stderr


def test_a_compiled_backbone_is_one_graph_a_stage_at_all_sizes(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    stages = [{"start": 0, "backbone": "frozen"}, {"start": 2, "backbone": "all"}]
    config = tiny_config(epochs=4, stages=stages, multi_scale={"base_size_repeat": 1})
    plain = train(config, f"output_dir={tmp_path / 'plain'}")
    torch._dynamo.reset()
    compiled = train(config, f"output_dir={tmp_path / 'compiled'}", "compile=True")
    assert len(_debug_get_cache_entry_list(DINOv3Backbone.forward.__code__)) == 2
    for one, other in zip(losses(plain), losses(compiled), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert weights(plain / "last.pth").keys() == weights(compiled / "last.pth").keys()
