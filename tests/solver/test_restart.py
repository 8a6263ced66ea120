"""Workers that are started again before their run's first own checkpoint go on as the first ones began."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ranks import on_ranks

from src import assembly, distributed, runs
from src.solver.checkpoint import read_checkpoint
from src.solver.trainer import Trainer

Config = Callable[..., Path]
Attempt = Callable[..., int]
CPU = torch.device("cpu")
STEPS_PER_EPOCH = 4


@pytest.fixture(scope="module")
def finished() -> list[Path]:
    return []


@pytest.fixture
def other(
    tiny_config: Config, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, finished: list[Path]
) -> Path:
    """The folder of a run of two epochs whose first one was the best; the run is made once."""
    if not finished:
        folder = tmp_path_factory.mktemp("finished")
        runs.train(assembly.load(tiny_config(), [f"output_dir={folder}"]), CPU)
        shutil.copyfile(folder / "last.1.pth", folder / "best.pth")
        finished.append(folder)
    return shutil.copytree(finished[0], tmp_path / "other")


@pytest.fixture
def attempt(tiny_config: Config, other: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """An attempt of one launch, a restart after the first, that dies before it trains; its first step."""
    assert other.exists()  # which is to be trained before this
    steps: list[int] = []
    monkeypatch.setattr(Trainer, "fit", lambda self: steps.append(self.global_step))
    monkeypatch.setattr(distributed, "has_begun", lambda: bool(steps))

    def start(output: Path, **begin: str) -> int:
        runs.train(assembly.load(tiny_config(), [f"output_dir={output}", "epochs=3"]), CPU, **begin)
        return steps[-1]

    return start


def test_going_on_elsewhere(attempt: Attempt, other: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert attempt(tmp_path / "new", resume=str(other / "last.pth")) == 2 * STEPS_PER_EPOCH
    assert read_checkpoint(tmp_path / "new" / "best.pth")["step"] == STEPS_PER_EPOCH


def test_going_on_from_the_best_of_the_same_folder(attempt: Attempt, other: Path) -> None:
    shutil.copyfile(other / "last.pth", other / "best.pth")
    shutil.copyfile(other / "last.1.pth", other / "last.pth")
    for _ in range(2):
        assert attempt(other, resume=str(other / "best.pth")) == 2 * STEPS_PER_EPOCH


@pytest.mark.parametrize("name", ["best.pth", "last.1.pth"])
def test_tuning_weights_of_the_same_folder(
    attempt: Attempt, other: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (other / "previous-1").mkdir()
    shutil.copyfile(other / "last.pth", other / "previous-1" / name)
    for _ in range(2):
        assert attempt(other, tune=str(other / name)) == 0
    told = [line for line in caplog.messages if line.startswith("fine-tuning from")]
    assert [
        str(place / name) in line for place, line in zip([other, other / "previous-2"], told, strict=True)
    ]


def test_weights_that_are_not_there_are_sought_nowhere_else(tiny_config: Config, other: Path) -> None:
    (other / "best.pth").rename(other / "kept.pth")
    (other / "previous-1").mkdir()
    shutil.copyfile(other / "last.pth", other / "previous-1" / "best.pth")
    with pytest.raises(ValueError, match=r"best\.pth: there is no such checkpoint"):
        runs.train(assembly.load(tiny_config(), [f"output_dir={other}"]), CPU, tune=str(other / "best.pth"))


def test_a_damaged_checkpoint_is_out_of_the_way_of_the_next(attempt: Attempt, other: Path) -> None:
    attempt(other, resume=str(other / "last.pth"))
    (other / "last.pth").unlink()
    (other / "last.pth").write_bytes(b"damaged")
    assert attempt(other, resume=str(other / "last.pth")) == STEPS_PER_EPOCH
    assert read_checkpoint(other / "last.pth")["step"] == STEPS_PER_EPOCH
    assert (other / "previous-1" / "last.pth").read_bytes() == b"damaged"


def tune_late(rank: int, config: Path, output: Path) -> int:
    """Start from the weights in `output`, which the second rank reads once they are moved, if they are."""
    build, deadline = runs.build_trainer, time.monotonic() + 3
    tune = output / "best.pth"

    def late(*args: object, **rest: object) -> Trainer:
        while rank == 1 and tune.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return build(*args, **rest)  # type: ignore[arg-type]

    steps: list[int] = []
    runs.build_trainer = late  # type: ignore[attr-defined]
    Trainer.fit = lambda self: steps.append(self.global_step)  # type: ignore[assignment, method-assign, return-value]
    runs.train(assembly.load(config, [f"output_dir={output}"]), CPU, tune=str(tune))
    return steps[0]


@pytest.mark.dist
def test_no_rank_finds_its_weights_moved(tiny_config: Config, other: Path, tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    assert on_ranks(tune_late, 2, tmp_path / "ranks", tiny_config(), other) == [0, 0]
    assert (other / "previous-1" / "best.pth").exists()
