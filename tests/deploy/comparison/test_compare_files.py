"""A real model of few parameters as a checkpoint, an ONNX file and OpenVINO's IR, side by side."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from lab_cases import Lab, annotate

from src.data import Origin
from src.deploy.comparison import files as measured
from src.deploy.comparison.files import compare_files
from src.deploy.detector import Detector
from src.deploy.export.onnx_graph import Exported
from src.deploy.runtimes import OpenVinoRuntime, openvino_core
from src.deploy.scores import coco_numbers
from src.solver.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def files(lab: Lab, lab_onnx: Path) -> list[Path]:
    """`best.pth`, `model.onnx` and `model.xml` of one model."""
    openvino = pytest.importorskip("openvino", reason="pip install -r requirements-openvino.txt")
    path = lab_onnx.with_suffix(".xml")
    openvino.save_model(openvino_core().read_model(str(lab_onnx)), str(path), compress_to_fp16=False)
    return [lab.folder / "best.pth", lab_onnx, path]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "SETTLE_S", 0.0)
    monkeypatch.setattr(measured, "WARM_UP", 0)


def test_every_form_is_measured(files: list[Path], lab: Lab, tmp_path: Path) -> None:
    origin = annotate(lab.detector, tmp_path / "set")
    comparison = compare_files(files, data=origin, threads=1, repeats=2)
    entries = comparison.entries
    assert [(one.label, one.runtime) for one in entries] == [
        ("best.pth, as trained", "PyTorch"),
        ("best.pth, deploy form", "PyTorch"),
        ("model.onnx", "ONNX Runtime"),
        ("model.xml", "OpenVINO"),
    ]
    weights = files[2].with_suffix(".bin").stat().st_size
    assert entries[3].size_bytes == files[2].stat().st_size + weights
    expected = coco_numbers(Detector.load(files[0], as_trained=True, device="cpu").runtime, origin)
    assert entries[0].metrics == expected.numbers()
    assert entries[0].agreement is None
    for one in entries[1:]:
        assert one.metrics == pytest.approx(expected.numbers(), abs=1e-3)
        assert one.agreement is not None and one.agreement.batch == 5
        assert one.agreement.share == 1 and one.agreement.num_compared >= 5 * 45
    assert [one.timing.num_calls for one in entries] == [2] * 4
    assert comparison.machine.threads == 1


def test_forms_agree_on_real_pictures(files: list[Path], shared: Path) -> None:
    aquarium = Origin(
        shared / "data/aquarium/images", shared / "data/aquarium/annotations/instances_val.json"
    )
    pictures = measured._pictures(aquarium, None)
    assert len(pictures) == 40
    forms = [form for path in files for form in measured._open(path, path.name, None, False)]
    _, *agreements = measured._agreements(forms, pictures, measured.SAME)
    for one in agreements:
        assert one is not None and one.num_apart == 0 and one.num_compared >= 40 * 45
        assert one.max_score_diff < 1e-3 and one.max_box_diff_px < 0.5


def test_pictures_may_come_from_a_folder(files: list[Path], lab: Lab, tmp_path: Path) -> None:
    origin = annotate(lab.detector, tmp_path / "set")
    comparison = compare_files(files[1:2] * 2, folder=origin.img_folder, threads=1, repeats=1)
    first, second = comparison.entries
    assert (first.label, first.metrics) == (str(files[1]), None)
    assert second.agreement is not None
    assert (second.agreement.batch, second.agreement.max_box_diff_px) == (5, 0)


def test_files_of_other_classes_are_refused(files: list[Path], exported: Exported, tmp_path: Path) -> None:
    content = torch.load(files[0], weights_only=True)
    content["classes"]["names"] = ("cat", "dog", "bat")
    save_checkpoint(tmp_path / "bats.pth", content)
    with pytest.raises(ValueError, match=r"bats\.pth has other classes than .*tiny\.onnx"):
        compare_files([exported.path, tmp_path / "bats.pth"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "--threads 0"),
        ({"repeats": 0}, "--repeats 0"),
        ({"threshold": 40}, "--threshold 40"),
        ({"bfloat16": True}, "--bfloat16 was asked for"),
        ({}, r"absent\.pth: no such file"),
    ],
)
def test_what_cannot_be_measured_is_told(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_files([Path("absent.pth")], **options)


def test_the_door_prints_the_table_and_writes_the_numbers(
    files: list[Path], lab: Lab, repo_root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    origin = annotate(lab.detector, tmp_path / "set")
    door = repo_root / "tools/benchmark/compare_files.py"
    options = ["--data", *map(str, origin[:2]), "--threads", "1", "--repeats", "1", "--threshold", "0.01"]
    options += ["--bfloat16", "--json", str(tmp_path / "n.json")]
    command = [str(door), "-m", str(files[1]), str(files[2]), *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(door), run_name="__main__")
    assert end.value.code == 0
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("model.onnx ") and second.startswith("model.xml  ")
    low = OpenVinoRuntime(files[2], num_threads=1, bfloat16=True).precision  # f32 on some processors
    assert third.startswith(f"model.xml, {low}  OpenVINO")
    content = json.loads((tmp_path / "n.json").read_text())
    assert content["threshold"] == 0.01
    assert content["files"][1]["agreement"]["share"] == 1
