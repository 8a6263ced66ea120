"""Runs that are stopped anywhere and go on: they end as one that was never disturbed, bit by bit."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train as train_door
from benchmarks.faults import differences, same
from src import assembly, door, runs
from src.door import Interrupted
from src.evaluation import CocoMetrics
from src.solver.batch_size import BatchPlan
from src.solver.evaluate import Evaluation
from src.solver.trainer import Trainer

Config = Callable[..., Path]
CPU = torch.device("cpu")
STEPS_PER_EPOCH = 4
PLAN: dict[str, Any] = {
    "epochs": 4,
    "print_freq": 3,
    "checkpoint_step_freq": 0,
    "eval_every": 2,
    "multi_scale": {"base_size_repeat": 1},
    "stages": [
        {"start": 0, "backbone": "frozen"},
        {"start": 1, "unfreeze_blocks": 2},
        {"start": 3, "strong_augmentation": False, "multi_scale": False, "ema_restart_decay": 0.8},
    ],
}


def train(config: Path, output: Path, *overrides: str, resume: str | None = None) -> Path:
    runs.train(assembly.load(config, [f"output_dir={output}", *overrides]), CPU, resume=resume)
    return output


@pytest.fixture(scope="session")
def finished() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory, finished: dict[str, Path]) -> Path:
    """The run of PLAN that nothing disturbs, made once."""
    if "whole" not in finished:
        finished["whole"] = train(tiny_config(**PLAN), tmp_path_factory.mktemp("whole"))
    return finished["whole"]


def ask_to_stop_in_step(patch: pytest.MonkeyPatch, step: int, asked: int = signal.SIGTERM) -> None:
    save_or_stop = Trainer._save_or_stop

    def interrupted(self: Trainer, *rest: Any) -> None:
        if self.global_step == step:
            os.kill(os.getpid(), asked)
        save_or_stop(self, *rest)

    patch.setattr(Trainer, "_save_or_stop", interrupted)


def test_a_run_stopped_after_every_step_ends_as_an_undisturbed_one(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    config = tiny_config(**PLAN)
    cut = tmp_path / "cut"
    for step in range(1, PLAN["epochs"] * STEPS_PER_EPOCH + 1):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            ask_to_stop_in_step(patch, step)
            workers = f"train_dataloader.num_workers={step % 5 == 0:d}"
            train(config, cut, workers, resume="auto")
        assert torch.load(cut / "last.pth", weights_only=True)["step"] == step
    train(config, cut, resume="auto")
    assert differences(cut, whole) == []


def test_a_run_stopped_in_its_evaluation_ends_as_an_undisturbed_one(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    config = tiny_config(**PLAN)
    cut = tmp_path / "cut"
    detect = Evaluation._detect

    def interrupted(self: Evaluation, *rest: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return detect(self, *rest)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Evaluation, "_detect", interrupted)
        train(config, cut)
    train(config, cut, resume="auto")
    assert differences(cut, whole) == []


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: Path
) -> None:
    config = tiny_config(**PLAN)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    spoilt = bytearray((cut / "last.pth").read_bytes())
    spoilt[len(spoilt) // 2] ^= 4
    (cut / "last.pth").write_bytes(spoilt)
    train(config, cut, resume="auto")
    assert any("damaged" in record.message and "last.1.pth" in record.message for record in caplog.records)
    assert differences(cut, whole) == []


def test_auto_without_a_checkpoint_starts_anew(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    auto, plain = (
        train(config, tmp_path / name, resume=how) for name, how in (("auto", "auto"), ("plain", None))
    )
    assert differences(auto, plain) == []


def test_a_fresh_start_keeps_the_earlier_runs_files(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    folder = train(config, tmp_path / "run")
    earlier = (folder / "best.pth").read_bytes()
    train(config, folder, "seed=1")
    assert (folder / "previous-1" / "best.pth").read_bytes() == earlier
    assert (folder / "best.pth").read_bytes() != earlier


def test_another_number_of_steps_an_epoch_and_another_width_are_refused(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        ask_to_stop_in_step(patch, 1)
        train(config, tmp_path / "run")
    with pytest.raises(ValueError, match=r"a run with 4 steps an epoch, and there are 2 now"):
        train(config, tmp_path / "run", "train_dataloader.total_batch_size=8", resume="auto")
    said = r"does not fit this experiment: .* DFINE: size mismatch for .* is torch.Size.*, or use -t"
    with pytest.raises(ValueError, match=said):  # torch begins with a line that gives no reason
        train(config, tmp_path / "run", "DFINETransformer.dim_feedforward=48", resume="auto")


def test_a_run_without_progress_ends_by_patience(
    tiny_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # a rate this small changes no detection: the first evaluation stays the best
    overrides = ["epochs=9", "patience=2", "optimizer.lr=1e-12", "optimizer.params=[]", "use_ema=False"]
    caplog.set_level("INFO")
    folder = train(tiny_config(), tmp_path / "run", *overrides)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "eval"] == [0, 1, 2]
    told = caplog.messages[-1]
    assert "best in epoch 0" in told and f"--test-only -r {folder / 'best.pth'}" in told


def test_a_later_best_checkpoint_does_not_leak_into_a_run_that_goes_on_from_before_it(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # every evaluation is better than the one before, so that best.pth is always of the newest
    numbers = CocoMetrics.numbers
    rising = iter(range(10**6))
    monkeypatch.setattr(CocoMetrics, "numbers", lambda self: numbers(self) | {"AP": float(next(rising))})
    plan = [{"start": 0}, {"start": 2, "multi_scale": False, "ema_restart_decay": 0.8}]
    config = tiny_config(**{**PLAN, "stages": plan, "eval_every": 1})
    whole = train(config, tmp_path / "whole", "checkpoint_keep=4")
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    assert torch.load(cut / "last.2.pth", weights_only=True)["epoch"] == 2  # the restart is next
    for later in ("last.pth", "last.1.pth"):
        (cut / later).unlink()
    train(config, cut, "checkpoint_keep=4", resume="auto")
    states = [torch.load(folder / "last.pth", weights_only=True) for folder in (cut, whole)]
    assert [key for key in ("model", "ema", "optimizer") if not same(states[0][key], states[1][key])] == []


def test_going_on_elsewhere_takes_the_best_checkpoint_along(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    first = train(config, tmp_path / "first")
    second = train(config, tmp_path / "second", "epochs=2", resume=str(first / "last.pth"))
    assert (second / "best.pth").exists()


def test_going_on_from_an_older_checkpoint_sets_the_later_ones_aside(
    tiny_config: Config, tmp_path: Path
) -> None:
    config = tiny_config(epochs=3)
    folder = train(config, tmp_path / "run")
    train(config, folder, "epochs=2", resume=str(folder / "last.2.pth"))
    assert torch.load(folder / "previous-1" / "last.pth", weights_only=True)["epoch"] == 3
    assert torch.load(folder / "last.pth", weights_only=True)["epoch"] == 2


def test_a_run_that_patience_ends_keeps_its_last_checkpoint(tiny_config: Config, tmp_path: Path) -> None:
    slow = ["optimizer.lr=1e-12", "optimizer.params=[]", "use_ema=False"]
    folder = train(tiny_config(), tmp_path / "run", "epochs=9", "patience=1", "checkpoint_freq=5", *slow)
    assert torch.load(folder / "last.pth", weights_only=True)["epoch"] == 2


def test_a_full_disk_leaves_the_old_config(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(epochs=1)
    folder = train(config, tmp_path / "run")
    told = (folder / "config.yml").read_text()
    open_file = Path.open

    def full(self: Path, mode: str = "r", **rest: Any) -> Any:
        if "config.yml" in self.name and mode == "wb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_file(self, mode, **rest)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ValueError, match=r"cannot write .*config\.yml: No space left on device"):
        train(config, folder, "epochs=2", resume="auto")
    assert (folder / "config.yml").read_text() == told


@pytest.mark.parametrize("how", ["auto", "last.pth"])
def test_a_checkpoint_is_read_once(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    unsaid = ["seed=null", "train_dataloader.total_batch_size=auto"]  # the checkpoint says both
    monkeypatch.setattr(runs, "probe", lambda *_, **__: BatchPlan(8, 1))
    config = tiny_config()
    folder = train(config, tmp_path / "run", "epochs=1", *unsaid)
    reads = []
    load = torch.load

    def counted(*args: Any, **options: Any) -> Any:
        reads.append(args)
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", counted)
    monkeypatch.setattr(Trainer, "fit", lambda _: None)
    resume = how if how == "auto" else str(folder / how)
    train(config, folder, "epochs=2", *unsaid, resume=resume)
    assert len(reads) == 1


KILLED_WHILE_BUILDING = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import train
from src import distributed, door, runs
build = runs.build_trainer
def killed(*args, **rest):
    if distributed.restart_count() == 0 and distributed.rank() == 1:
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return build(*args, **rest)
runs.build_trainer = killed
sys.exit(door.run(train.main))
"""


@pytest.mark.dist
def test_a_worker_that_dies_before_its_run_has_begun_does_not_resume_an_earlier_one(
    tiny_config: Config, tmp_path: Path, repo_root: Path
) -> None:
    config = tiny_config(epochs=1)
    folder = train(config, tmp_path / "run", "seed=1")
    earlier = (folder / "last.pth").read_bytes()
    script = tmp_path / "killed.py"
    script.write_text(KILLED_WHILE_BUILDING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(script), str(repo_root), "-c", str(config), "-u", f"output_dir={folder}"]
    done = subprocess.run(
        [*launcher, "--max-restarts=1", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    assert (folder / "previous-1" / "last.pth").read_bytes() == earlier
    assert "resumed from" not in done.stderr
    assert torch.load(folder / "last.pth", weights_only=True)["step"] == STEPS_PER_EPOCH


def test_tuning_goes_with_auto_and_only_with_it(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(epochs=1)
    weights = train(config, tmp_path / "first") / "best.pth"
    line = ["train.py", "-c", str(config), "-t", str(weights), "--output-dir", str(tmp_path / "tuned"), "-r"]
    for _ in ("tunes", "has nothing left to do"):
        monkeypatch.setattr(sys, "argv", [*line, "auto"])
        assert door.run(train_door.main) == 0
    told = capsys.readouterr().err
    assert told.count("fine-tuning from") == 1 and told.count("resumed from") == 1
    monkeypatch.setattr(sys, "argv", [*line, str(weights)])
    with pytest.raises(SystemExit, match="2"):
        door.run(train_door.main)
