"""What a run and a test leave to be looked at, and when."""

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from ranks import on_ranks

from src import assembly, runs
from src.door import Interrupted
from src.evaluation import CocoEvaluator
from src.solver import recorder
from src.solver.logs import MetricsLog
from src.solver.recorder import Recorder, record_test
from src.solver.summary import closing_words
from src.structures import ClassNames, Detections, GroundTruth

CPU = torch.device("cpu")
CHARTS = ("precision_recall", "precision_recall_50", "precision_recall_thresholds", "scores", "classes")
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
PICTURES = {
    f"{n}.png" for n in (*CHARTS, "confusion", "errors", "predictions", *(f"errors_{k}" for k in KINDS))
}


@pytest.mark.usefixtures("reports")
def test_training_and_test_only_leave_all_that_one_looks_at(
    tiny_config: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(epochs=1)
    runs.train(assembly.load(config), CPU)
    output = tmp_path / "output"
    page = (output / "report.html").read_text()
    assert "best.pth, of epoch 0" in page and 'id="training"' in page
    assert {path.name for path in (output / "report").iterdir()} == PICTURES
    with (output / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["train", "train", "eval"]
    assert rows[-1]["AP"] == str(json.loads((output / "eval.json").read_text())["AP"])

    overrides = [f"output_dir={tmp_path / 'tested'}"]
    with caplog.at_level(logging.INFO):
        runs.test(assembly.load(config, overrides), CPU, checkpoint=str(output / "best.pth"))
    assert f"report: {tmp_path / 'tested' / 'report.html'}" in caplog.text
    tested = {path.name for path in (tmp_path / "tested").iterdir()}
    assert tested == {"report.html", "report", "metrics.jsonl", "metrics.csv", "eval.json"}
    assert {path.name for path in (tmp_path / "tested" / "report").iterdir()} == PICTURES
    (line,) = (tmp_path / "tested" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line).items() >= {"kind": "test", "step": 4}.items()
    assert json.loads(line)["AP"] == json.loads((output / "eval.json").read_text())["AP"]
    page = (tmp_path / "tested" / "report.html").read_text()
    assert str(output / "best.pth") in page and 'id="training"' not in page


def evaluated() -> Any:
    """What a trainer holds after an evaluation of one picture, without a model."""
    none = np.zeros(0, np.int64)
    truth = GroundTruth(np.array([4]), none, none, np.zeros((0, 4)), np.zeros(0), none > 0)
    evaluator = CocoEvaluator("instances.json", ClassNames(("x",), (9,)), truth)
    nothing = Detections(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, 4), torch.zeros(1, 0))
    evaluator.update([4], nothing)
    metrics = evaluator.compute()
    pictures = lambda image_id: (f"{image_id}.png", Image.new("RGB", (20, 10)))  # noqa: E731
    return SimpleNamespace(evaluator=evaluator, pictures=pictures, metrics=metrics)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reports are about, instead of the reports."""
    reported: list[str] = []
    monkeypatch.setattr(recorder, "write_report", lambda *_, about: reported.append(about))
    return reported


def test_the_best_is_reported_at_the_end_once(tmp_path: Path, told: list[str]) -> None:
    with Recorder(tmp_path, None, resume_step=0) as written:
        for epoch in (0, 3):
            written.best(epoch, evaluated())
        assert told == []
    assert told == ["best.pth, of epoch 3"]


def test_a_long_run_is_reported_on_its_way(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(recorder, "time", clock)
    with Recorder(tmp_path, None, resume_step=0) as written:
        for epoch in range(6):
            clock.now += 250
            written.best(epoch, evaluated())
        assert told == ["best.pth, of epoch 2", "best.pth, of epoch 5"]
        clock.now += 1


@pytest.mark.parametrize(("error", "reports"), [(Interrupted(15), 1), (ValueError("bad step"), 0)])
def test_an_interrupted_run_is_reported_and_a_broken_one_is_not(
    tmp_path: Path, told: list[str], error: BaseException, reports: int
) -> None:
    with pytest.raises(type(error)), Recorder(tmp_path, None, resume_step=0) as written:
        written.best(0, evaluated())
        raise error
    assert len(told) == reports


def test_without_an_evaluation_there_is_no_report(tmp_path: Path, told: list[str]) -> None:
    with Recorder(tmp_path, None, resume_step=0):
        pass
    assert told == []


def test_a_test_beside_a_running_training_keeps_its_lines(tmp_path: Path, told: list[str]) -> None:
    done = evaluated()
    with MetricsLog(tmp_path) as training:
        training.write({"kind": "train", "step": 1, "loss": 3.0})
        record_test(tmp_path, done, done.metrics, Path("best.pth"), step=0)
        training.write({"kind": "train", "step": 2, "loss": 2.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 1), ("test", 0), ("train", 2)]
    assert told == ["best.pth"]


def test_a_test_after_a_killed_training_drops_its_half_line(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 7}\n{"kind": "tr')
    done = evaluated()
    record_test(tmp_path, done, done.metrics, Path("best.pth"), step=0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "test"]
    assert told == ["best.pth"]


def record_on_rank(_: int, folder: Path) -> dict[str, Any]:
    """Both ways to a report, on a rank that has scored and on one that has not."""
    done = evaluated()
    with Recorder(folder / "run", str(folder / "board"), resume_step=0) as written:
        written.best(0, done)
    after_training = (folder / "run" / "report.html").exists()
    record_test(folder / "tested", done, done.metrics, Path("best.pth"), step=0)
    return {
        "scored": done.evaluator.scored is not None,
        "reports": after_training and (folder / "tested" / "report.html").exists(),
        "world": dist.get_world_size(),
    }


@pytest.mark.dist
def test_the_main_rank_writes_and_the_others_wait_for_it(tmp_path: Path) -> None:
    results = on_ranks(record_on_rank, 2, tmp_path, tmp_path)
    assert results == [
        {"scored": True, "reports": True, "world": 2},
        {"scored": False, "reports": True, "world": 2},
    ]


def test_the_closing_words_name_the_report_where_there_is_one(tmp_path: Path) -> None:
    best = {"AP": 0.5, "AP50": 0.7, "epoch": 3.0}
    (tmp_path / "best.pth").touch()
    assert f"curves   {tmp_path / 'curves.png'}" in closing_words(tmp_path, "AP", best)
    (tmp_path / "report.html").touch()
    assert f"report   {tmp_path / 'report.html'}" in closing_words(tmp_path, "AP", best)
