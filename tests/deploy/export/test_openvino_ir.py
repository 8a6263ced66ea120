"""OpenVINO's own files find what the ONNX file finds, and are there whole or not at all."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from parted import export_parted

from src.deploy.agreement import compare
from src.deploy.comparison import files
from src.deploy.detector import Detector
from src.deploy.export import openvino_ir
from src.deploy.export.onnx_graph import DeployModel, GraphOptions
from src.deploy.export.openvino_ir import save_openvino
from src.deploy.export.quantization import quantize
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime, OpenVinoRuntime
from src.deploy.samples import made_up
from src.deploy.sources import find_pictures

pytest.importorskip("openvino", reason="pip install -r requirements-openvino.txt")
pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")


def test_it_finds_the_same_and_knows_its_classes(
    parted_file: Path, photographs: Path, tmp_path: Path
) -> None:
    saved = save_openvino(parted_file, tmp_path / "model.xml")
    assert sorted(os.listdir(tmp_path)) == ["model.bin", "model.xml"]
    assert saved.size_bytes == sum((tmp_path / name).stat().st_size for name in os.listdir(tmp_path))
    assert saved.agreement is not None and saved.agreement.num_compared >= 54
    samples = made_up((64, 96), 2)
    source = OnnxRuntime(parted_file, num_threads=1)
    runtime = OpenVinoRuntime(saved.path, num_threads=1)
    assert (runtime.classes, runtime.input_hw, runtime.batch) == (source.classes, (64, 96), None)
    compare(source.run(samples.images, samples.sizes_hw), runtime.run(samples.images, samples.sizes_hw))
    assert len(list(Detector.load(saved.path, num_threads=1)(photographs))) == 5


def test_weights_in_float16_are_half_the_size(parted_file: Path, tmp_path: Path) -> None:
    save_openvino(parted_file, tmp_path / "whole.xml")
    saved = save_openvino(parted_file, tmp_path / "half.xml", half=True)
    assert saved.agreement is None
    whole, half = ((tmp_path / f"{name}.bin").stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole
    samples = made_up((64, 96))
    found, expected = (
        OpenVinoRuntime(tmp_path / f"{name}.xml").run(samples.images, samples.sizes_hw)
        for name in ("half", "whole")
    )
    torch.testing.assert_close(found.scores, expected.scores, atol=0.01, rtol=0)


def test_a_file_in_8_bits_stays_so(parted_file: Path, photographs: Path, tmp_path: Path) -> None:
    quantize(parted_file, tmp_path / "int8.onnx", find_pictures(photographs))
    saved = save_openvino(tmp_path / "int8.onnx", tmp_path / "int8.xml")
    assert saved.agreement is None
    assert 'element_type="i8"' in saved.path.read_text()


def test_a_file_in_half_precision_stays_so(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    export_parted(tiny.postprocessor, tmp_path / "half.onnx", card, GraphOptions(half=True))
    saved = save_openvino(tmp_path / "half.onnx", tmp_path / "half.xml")
    assert saved.agreement is None
    assert 'element_type="f16"' in saved.path.read_text()


def test_one_that_finds_something_else_never_arrives(
    parted_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(OpenVinoRuntime):
        def run(self, images: torch.Tensor, sizes_hw: torch.Tensor) -> object:  # type: ignore[override]
            return super().run(images * 0.5, sizes_hw)

    monkeypatch.setattr(openvino_ir, "OpenVinoRuntime", Other)
    with pytest.raises(ValueError, match=r"model\.xml: OpenVINO and ONNX Runtime do not agree"):
        save_openvino(parted_file, tmp_path / "out" / "model.xml")
    assert os.listdir(tmp_path) == []


def test_other_names_are_refused(parted_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx: OpenVINO's file must end in \.xml"):
        save_openvino(parted_file, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"absent\.onnx: no such file"):
        save_openvino(tmp_path / "absent.onnx", tmp_path / "model.xml")


def test_the_door_compares_both(
    parted_file: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(files, "SETTLE_S", 0.0)
    monkeypatch.setattr(files, "WARM_UP", 0)
    door = repo_root / "tools/deployment/export_openvino.py"
    output = tmp_path / "model.xml"
    command = [str(door), "-m", str(parted_file), "-o", str(output), "--threads", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(door), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("model.xml    OpenVINO")
    report = json.loads((tmp_path / "model.xml.json").read_text())
    assert report["weights_in_float16"] is False
    assert [one["runtime"] for one in report["files"]] == ["ONNX Runtime", "OpenVINO"]
