"""The doors of inference: what predict.py writes, and that D-FINE's own flags are taken."""

import csv
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import deploy
from tests.tools.conftest import IDS, NAMES

Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def door(repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """Exit status, stdout and stderr of a door that is run in this process."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(repo_root / "tools/inference" / name), run_name="__main__")
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_a_folder_with_a_checkpoint_needs_no_config(
    door: Door, checkpoint: Path, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    status, said, _ = door(
        "predict.py", "-m", checkpoint.parent, "-i", source, "-o", out, "--threshold", 0, "-d", "cpu",
        "--save", "pictures,coco,csv", "--batch-size", 2,
    )  # fmt: skip
    assert (status, said) == (0, f"2 pictures, 40 detections: {out}\n")
    assert sorted(os.listdir(out)) == ["a.jpg", "b.png", "detections.csv", "detections.json"]
    records = json.loads((out / "detections.json").read_text())
    assert len(records) == 40 and {one["category_id"] for one in records} <= set(IDS)
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [one["score"] for one in records]
    assert {(row["category_id"], row["class_name"]) for row in rows} <= set(
        zip(map(str, IDS), NAMES, strict=True)
    )


def test_slices_reach_the_detector(door: Door, checkpoint: Path, source: Path, tmp_path: Path) -> None:
    common = ("-m", checkpoint, "-i", source / "b.png", "--threshold", 0, "-d", "cpu", "--save", "coco")
    assert door("predict.py", *common, "-o", tmp_path / "whole")[0] == 0
    assert door("predict.py", *common, "-o", tmp_path / "sliced", "--slice", 64, "--overlap", 0.3)[0] == 0
    whole, sliced = (
        json.loads((tmp_path / name / "detections.json").read_text()) for name in ("whole", "sliced")
    )
    assert whole != sliced


def test_a_video_comes_back_as_one(door: Door, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="pip install -r requirements-video.txt")
    from src.deploy.video import VideoWriter

    with VideoWriter(tmp_path / "clip.mp4", 10.0) as writer:
        for level in (0, 90, 180):
            writer.add(Image.new("RGB", (64, 48), (level, level, level)))
    out = tmp_path / "out"
    status, said, _ = door(
        "predict.py", "-m", checkpoint, "-i", tmp_path / "clip.mp4", "-o", out, "-d", "cpu"
    )
    assert status == 0 and said.startswith("3 pictures, ")
    assert sorted(os.listdir(out)) == ["clip.mp4", "detections.json"]


def test_openvinos_door_asks_for_bfloat16(
    door: Door, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, num_threads: int, bfloat16: bool) -> None:
        raise ValueError(f"{path.name}: {num_threads} threads, bfloat16 {bfloat16}")

    monkeypatch.setattr(deploy, "OpenVinoRuntime", refuse)
    arguments = ("-m", "model.onnx", "-i", source, "-o", tmp_path / "out", "--threads", 1)
    for flags, asked in (((), False), (("--bfloat16",), True)):
        status, _, said = door("openvino_inf.py", *arguments, *flags)
        assert (status, said) == (2, f"error: model.onnx: 1 threads, bfloat16 {asked}\n")


def test_bad_input_is_one_paragraph_and_status_2(
    door: Door, checkpoint: Path, source: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "out")
    cases: list[tuple[tuple[object, ...], str]] = [
        (
            ("predict.py", "-m", checkpoint, "-i", tmp_path / "no*.jpg", *out),
            "no picture or video has a name",
        ),
        (
            ("predict.py", "-m", checkpoint, "-i", "https://x.org/a.jpg", *out),
            "addresses are not fetched",
        ),
        (("predict.py", "-m", checkpoint, "-i", 0, *out), "a camera has no end"),
        (
            ("predict.py", "-m", checkpoint, "-i", source, *out, "--save", "xml"),
            "saving xml was asked for",
        ),
        (("predict.py", "-m", checkpoint, "-i", source, *out, "--threads", 2), "OMP_NUM_THREADS"),
        (("predict.py", "-m", checkpoint, "-i", source, *out, "--bfloat16"), "bfloat16 is for OpenVINO's"),
        (("predict.py", "-m", tmp_path, "-i", source, *out), "there is none; name the file"),
        (("onnx_inf.py", "--onnx", tmp_path / "no.onnx", "--input", source, *out), "no.onnx: no such file"),
        (("openvino_inf.py", "-ov_model", tmp_path / "no.xml", "-image", source), "no.xml: no such file"),
        (("openvino_inf.py", "--ov_model", tmp_path / "no.xml", "--image", source), "no.xml: no such file"),
        (
            ("trt_inf.py", "-trt", "model.engine", "-i", source, "-d", "cuda:0"),
            "does not run TensorRT engines",
        ),
        (("trt_inf.py", "--trt", "model.engine", "--input", source), "the package tensorrt"),
    ]
    for (name, *arguments), message in cases:
        status, _, said = door(str(name), *arguments)
        assert status == 2, said
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
