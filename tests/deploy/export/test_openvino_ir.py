"""OpenVINO's own files find what the ONNX file finds, and are there whole or not at all."""

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab_cases import Lab, annotate
from parted import export_parted

from src.deploy.agreement import FLOAT32, HALF, compare
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
    evidence = saved.evidence
    assert evidence is not None and evidence.agreement.num_compared >= 54
    assert evidence[:2] == ("made-up pictures", FLOAT32) and evidence.reference == "ONNX Runtime"
    samples = made_up((64, 96), 2)
    source = OnnxRuntime(parted_file, num_threads=1)
    runtime = OpenVinoRuntime(saved.path, num_threads=1)
    assert (runtime.classes, runtime.input_hw, runtime.batch) == (source.classes, (64, 96), None)
    compare(source.run(samples.images, samples.sizes_hw), runtime.run(samples.images, samples.sizes_hw))
    assert len(list(Detector.load(saved.path, num_threads=1)(photographs))) == 5


def test_weights_in_float16_are_half_the_size(parted_file: Path, tmp_path: Path) -> None:
    save_openvino(parted_file, tmp_path / "whole.xml")
    saved = save_openvino(parted_file, tmp_path / "half.xml", half=True)
    assert saved.evidence is not None and saved.evidence.tolerance == HALF
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
    assert saved.evidence is None
    assert 'element_type="i8"' in saved.path.read_text()


def test_a_file_in_half_precision_stays_so(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    export_parted(tiny.postprocessor, tmp_path / "half.onnx", card, GraphOptions(half=True))
    saved = save_openvino(tmp_path / "half.onnx", tmp_path / "half.xml")
    assert saved.evidence is not None and saved.evidence.tolerance == HALF
    assert 'element_type="f16"' in saved.path.read_text()


def test_one_that_finds_something_else_never_arrives(
    parted_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(OpenVinoRuntime):
        def run(self, images: torch.Tensor, sizes_hw: torch.Tensor) -> object:  # type: ignore[override]
            return super().run(images * 0.5, sizes_hw)

    monkeypatch.setattr(openvino_ir, "OpenVinoRuntime", Other)
    with pytest.raises(ValueError, match=r"model\.xml: OpenVINO and ONNX Runtime do not agree on made-up"):
        save_openvino(parted_file, tmp_path / "out" / "model.xml")
    assert os.listdir(tmp_path) == []


def test_real_pictures_take_the_place_of_made_up_ones(
    parted_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = annotate(Detector.load(parted_file, num_threads=1), tmp_path / "set")
    saved = save_openvino(parted_file, tmp_path / "model.xml", pictures=origin)
    assert saved.evidence is not None and saved.evidence.agreement.batch == 5
    assert saved.evidence.pictures == f"the first pictures of {origin.ann_file}"
    made = made_up((64, 96))

    class Prepared(OpenVinoRuntime):
        """Right on made-up pictures alone."""

        def run(self, images: torch.Tensor, sizes_hw: torch.Tensor) -> object:  # type: ignore[override]
            return super().run(images if torch.equal(images, made.images) else images * 0.5, sizes_hw)

    monkeypatch.setattr(openvino_ir, "OpenVinoRuntime", Prepared)
    with pytest.raises(ValueError, match=r"do not agree on the first pictures of .*objects\.json"):
        save_openvino(parted_file, tmp_path / "out" / "model.xml", pictures=origin)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_model_is_refused(parted_file: Path, lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"parted\.onnx: is of other classes, or takes pictures of another"):
        save_openvino(parted_file, tmp_path / "model.xml", reference=lab.detector.runtime)


def test_other_names_are_refused(parted_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx: OpenVINO's file must end in \.xml"):
        save_openvino(parted_file, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"absent\.onnx: no such file"):
        save_openvino(tmp_path / "absent.onnx", tmp_path / "model.xml")


@pytest.fixture
def at_the_door(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Calls the tool with arguments, and gives its exit status or message."""
    monkeypatch.setattr(files, "SETTLE_S", 0.0)
    monkeypatch.setattr(files, "WARM_UP", 0)
    door = repo_root / "tools/deployment/export_openvino.py"

    def call(*arguments: object) -> object:
        command = [door, *arguments, "--threads", 1, "--repeats", 1]
        monkeypatch.setattr(sys, "argv", [str(one) for one in command])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(door), run_name="__main__")
        return end.value.code

    return call


def test_the_door_compares_both(
    at_the_door: Callable[..., object], parted_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_the_door("-m", parted_file, "-o", tmp_path / "model.xml") == 0
    out = capsys.readouterr().out
    assert "agrees with ONNX Runtime (3 pictures, " in out and "on made-up pictures" in out
    assert out.splitlines()[-1].startswith("model.xml    OpenVINO")
    report = json.loads((tmp_path / "export.json").read_text())["model.xml"]
    assert report["weights_in_float16"] is False
    assert report["verified"]["reference"] == "ONNX Runtime"
    assert [one["runtime"] for one in report["files"]] == ["ONNX Runtime", "OpenVINO"]


def test_the_door_compares_with_the_checkpoint(
    at_the_door: Callable[..., object], lab: Lab, lab_onnx: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    origin = annotate(lab.detector, tmp_path / "set")
    output = tmp_path / "model.xml"
    named = ("-m", lab_onnx, "-o", output, "--data", origin.img_folder, origin.ann_file)
    assert at_the_door(*named, "-r", lab.folder / "best.pth") == 0
    assert "agrees with PyTorch (5 pictures, " in capsys.readouterr().out
    report = json.loads((tmp_path / "export.json").read_text())["model.xml"]
    assert report["verified"]["pictures"] == f"the first pictures of {origin.ann_file}"
    labels = ["best.pth, as trained", "best.pth, deploy form", "model.onnx", "model.xml"]
    assert [one["label"] for one in report["files"]] == labels
    in_torch, *_, in_openvino = (one["metrics"]["AP"] for one in report["files"])
    assert in_openvino == pytest.approx(in_torch, abs=FLOAT32.ap) and in_torch > 0.01
    assert at_the_door(*named, "-r", lab.folder / "plain.pth") == 2
    assert "holds no config" in capsys.readouterr().err
