"""OpenVINO gives what PyTorch gives."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from src.deploy import runtimes
from src.deploy.agreement import compare
from src.deploy.export.onnx_graph import DeployModel, Exported, GraphOptions, export_onnx
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime, OpenVinoRuntime, TorchRuntime
from src.deploy.samples import pictures

pytest.importorskip("openvino", reason="pip install -r requirements-openvino.txt")
onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")

SIZES_HW = torch.tensor([[480, 640], [333, 100], [64, 96]])


@pytest.fixture(scope="module")
def torch_runtime(tiny: DeployModel, card: ModelCard) -> TorchRuntime:
    return TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw)


@pytest.mark.parametrize("batch", [None, 2])
def test_detects_what_pytorch_detects(
    exported: Exported,
    tiny: DeployModel,
    card: ModelCard,
    torch_runtime: TorchRuntime,
    tmp_path: Path,
    batch: int | None,
) -> None:
    path = exported.path
    if batch:
        path = export_onnx(tiny, tmp_path / "fixed.onnx", card, GraphOptions(batch=batch)).path
    runtime = OpenVinoRuntime(path, num_threads=1)
    assert (runtime.classes, runtime.input_hw, runtime.batch) == (card.classes, card.input_hw, batch)
    images = pictures(3, card.input_hw, seed=5)
    for count in (3, 1):
        ours = torch_runtime.run(images[:count], SIZES_HW[:count])
        theirs = runtime.run(images[:count], SIZES_HW[:count])
        assert compare(ours, theirs).num_compared >= 18 * count
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype


def test_what_was_found_outlives_the_next_call(exported: Exported, card: ModelCard) -> None:
    runtime = OpenVinoRuntime(exported.path, num_threads=1)
    images = pictures(2, card.input_hw, seed=6)
    first = runtime.run(images[:1], SIZES_HW[:1])
    kept = first.scores.clone()
    runtime.run(images[1:], SIZES_HW[:1])
    assert torch.equal(first.scores, kept)


def test_bfloat16_is_near_and_another(
    exported: Exported, card: ModelCard, torch_runtime: TorchRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    capable = "BF16" in runtimes.openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    exact = OpenVinoRuntime(exported.path, num_threads=1)
    runtime = OpenVinoRuntime(exported.path, num_threads=1, bfloat16=True)
    assert (exact.precision, runtime.precision == "bf16") == ("f32", capable)
    assert bool(caplog.messages) != capable
    images = pictures(3, card.input_hw, seed=5)
    ours, theirs = torch_runtime.run(images, SIZES_HW), runtime.run(images, SIZES_HW)
    torch.testing.assert_close(theirs.scores, ours.scores, atol=0.03, rtol=0)
    assert torch.equal(theirs.scores, exact.run(images, SIZES_HW).scores) != capable


def test_a_processor_without_bfloat16_is_told_of(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = runtimes.openvino_core()

    class OlderProcessor:
        read_model = core.read_model

        def compile_model(self, model: object, device: str, settings: dict[str, object]) -> Any:
            return core.compile_model(model, device, {**settings, "INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(runtimes, "openvino_core", OlderProcessor)
    assert OpenVinoRuntime(exported.path, num_threads=1).precision == "f32" and not caplog.messages
    assert OpenVinoRuntime(exported.path, num_threads=1, bfloat16=True).precision == "f32"
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.WARNING, f"{exported.path}: on this processor OpenVINO calculates in f32, not bf16")
    ]


def test_files_that_cannot_be_used_are_named(exported: Exported, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"broken\.onnx: OpenVINO cannot read this file"):
        OpenVinoRuntime(broken)
    with pytest.raises(ValueError, match=r"absent\.onnx: no such file"):
        OpenVinoRuntime(tmp_path / "absent.onnx")
    proto = onnx.load(exported.path)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "bare.onnx")
    for runtime in (OpenVinoRuntime, OnnxRuntime):
        with pytest.raises(ValueError, match=r"bare\.onnx: its metadata has format_version None"):
            runtime(tmp_path / "bare.onnx")


def test_a_signal_after_two_detectors_have_gone_is_handled(exported: Exported, repo_root: Path) -> None:
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from src.deploy.runtimes import OpenVinoRuntime\n"
        "first, second = (OpenVinoRuntime(Path(sys.argv[1]), num_threads=1) for _ in range(2))\n"
        "del first\n"
        "del second\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\n"
        "signal.raise_signal(signal.SIGUSR1)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, exported.path], check=False, cwd=repo_root)
    assert ended.returncode == 7
