import errno
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train
from src import distributed
from src.solver.logs import MetricsLog, TensorboardLog, picture_grid, setup_logging, writing_in


@pytest.fixture
def quiet_root() -> Iterator[None]:
    """Take away what setup_logging adds."""
    root = logging.getLogger()
    before, levels = (
        list(root.handlers),
        {name: logging.getLogger(name).level for name in ("src", "__main__")},
    )
    yield
    for handler in [h for h in root.handlers if h not in before]:
        root.removeHandler(handler)
        handler.close()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("quiet_root")
def test_the_main_rank_speaks_on_stderr_and_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging(tmp_path / "run")
    logging.getLogger("src.solver.trainer").info("epoch %d", 3)
    logging.getLogger("timm").info("loading pretrained weights")
    logging.getLogger("timm").warning("odd")
    err = capsys.readouterr().err
    assert "INFO epoch 3" in err
    assert "WARNING odd" in err
    assert "pretrained" not in err
    assert (tmp_path / "run" / "log.txt").read_text().count("epoch 3") == 1


@pytest.mark.usefixtures("quiet_root")
def test_a_second_setup_replaces_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path / "a")
    setup_logging(tmp_path / "b")
    logging.getLogger("src.x").info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert "once" not in (tmp_path / "a" / "log.txt").read_text()
    setup_logging(None)
    logging.getLogger("src.x").info("nowhere")
    assert "nowhere" not in (tmp_path / "b" / "log.txt").read_text()


@pytest.mark.usefixtures("quiet_root")
def test_a_terminal_that_is_gone_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    setup_logging(tmp_path)
    monkeypatch.setattr("sys.stderr", Gone())
    logging.getLogger("src.x").info("still here")
    assert "still here" in (tmp_path / "log.txt").read_text()


@pytest.mark.usefixtures("quiet_root")
def test_other_ranks_only_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: 2)
    setup_logging(tmp_path)
    logging.getLogger("src.x").info("quiet")
    logging.getLogger("src.x").warning("loud")
    err = capsys.readouterr().err
    assert "quiet" not in err
    assert "rank 2 WARNING loud" in err
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.usefixtures("quiet_root")
@pytest.mark.parametrize(("rank", "said"), [("0", ["INFO"]), ("1", [])])
def test_notes_about_the_configuration_are_told_once_and_beside_the_output(
    rank: str,
    said: list[str],
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", rank)
    config = repo_root / "configs" / "dfine" / "dfine_dinov3_s_coco.yml"
    monkeypatch.setattr("sys.argv", ["train.py", "-c", str(config), "--print-config"])
    train.main()
    out, err = capsys.readouterr()
    notes = [line for line in err.splitlines() if line.endswith("section HGNetv2 is not used and left out")]
    assert [line.split()[2] for line in notes] == said
    assert "left out" not in out and yaml.safe_load(out)["model"] == "DFINE"


def test_metrics_stand_in_the_file_at_once(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "new") as log:
        log.write(
            {
                "kind": "train",
                "step": 10,
                "loss": torch.tensor(2.5),
                "lr": np.float32(0.5),
                "AP": float("nan"),
            }
        )
        expected = {"kind": "train", "step": 10, "loss": 2.5, "lr": 0.5, "AP": None}
        assert lines_of(tmp_path / "new" / "metrics.jsonl") == [expected]


def test_a_resumed_run_leaves_no_doubles(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.write({"step": step, "run": 1})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 40, "lo')  # killed while writing
    with MetricsLog(tmp_path, resume_step=20) as log:
        log.write({"step": 30, "run": 2})
    assert lines_of(path) == [{"step": 10, "run": 1}, {"step": 20, "run": 1}, {"step": 30, "run": 2}]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_a_run_that_starts_again_drops_what_came_before_any_checkpoint(tmp_path: Path) -> None:
    for run in (1, 2):
        with MetricsLog(tmp_path) as log:
            log.write({"step": 5, "run": run})
    assert lines_of(tmp_path / "metrics.jsonl") == [{"step": 5, "run": 2}]


def test_a_full_disk_is_told_with_the_folder_and_the_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"No space left on device; make room.*-r auto"),
        writing_in(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_resuming_without_a_file_starts_one(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, resume_step=20) as log:
        log.write({"step": 30})
    assert lines_of(tmp_path / "metrics.jsonl") == [{"step": 30}]


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with MetricsLog(tmp_path / "a") as log, TensorboardLog(tmp_path / "b") as board:
        log.write({"step": 1})
        board.scalars({"loss": 1.0}, 1)
        board.images([Image.new("RGB", (4, 4))], 1)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_log_stays_closed(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.close()
    log.close()
    log.write({"step": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_line_without_a_step_is_our_fault(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log, pytest.raises(AssertionError, match="states its step"):
        log.write({"loss": 1.0})


def test_tensorboard_reads_back_scalars_and_pictures_without_doubles(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorboardLog(tmp_path) as board:
        for step in (10, 20, 30):
            board.scalars({"loss_vfl": 1.0 / step, "lr": 0.1}, step)
        board.images([Image.new("RGB", (8, 6)), np.zeros((4, 4, 3), np.uint8)], 30)
        board.close()
    with TensorboardLog(tmp_path, resume_step=20) as board:
        board.scalars({"loss_vfl": 7.0}, 30)
        board.images([], 30)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss_vfl")] == [
        (10, pytest.approx(0.1)),
        (20, pytest.approx(0.05)),
        (30, 7.0),
    ]


def test_tensorboard_keeps_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorboardLog(tmp_path) as board:
        board.images([Image.new("RGB", (8, 6)), np.zeros((4, 4, 3), np.uint8)], 30)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("detections")
    assert (image.step, image.width, image.height) == (30, 16, 6)


def test_the_grid_holds_every_picture_whole() -> None:
    pictures = [np.full((2 + i, 5 - i, 3), i, np.uint8) for i in range(3)]
    grid = picture_grid([*pictures, Image.new("L", (3, 3), 200)])
    assert grid.shape == (8, 10, 3)
    assert (grid[:2, :5] == 0).all()
    assert (grid[:3, 5:9] == 1).all()
    assert (grid[4:8, :3] == 2).all()
    assert (grid[4:7, 5:8] == 200).all()
    assert (grid[2:4, :5] == 114).all()
    assert picture_grid(pictures[:1]).shape == (2, 5, 3)
