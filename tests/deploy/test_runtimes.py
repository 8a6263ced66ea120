from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._inductor import metrics

from src.deploy.agreement import compare
from src.deploy.export.onnx_graph import DeployModel, Exported
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime, Runtime, TorchRuntime
from src.deploy.samples import pictures

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")


@pytest.fixture(scope="module")
def onnx_runtime(exported: Exported) -> OnnxRuntime:
    return OnnxRuntime(exported.path, num_threads=1)


@pytest.fixture(scope="module")
def torch_runtime(tiny: DeployModel, card: ModelCard) -> TorchRuntime:
    return TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw)


def test_both_say_the_same_of_themselves(
    onnx_runtime: OnnxRuntime, torch_runtime: TorchRuntime, card: ModelCard
) -> None:
    runtimes: list[Runtime] = [onnx_runtime, torch_runtime]
    for runtime in runtimes:
        assert runtime.classes == card.classes
        assert runtime.input_hw == (64, 96)
    assert onnx_runtime.batch is None


@pytest.mark.parametrize("count", [1, 3])
def test_both_detect_the_same(onnx_runtime: OnnxRuntime, torch_runtime: TorchRuntime, count: int) -> None:
    images = pictures(count, (64, 96), seed=5)
    sizes_hw = torch.tensor([[480, 640], [333, 100], [64, 96]])[:count]
    ours, theirs = torch_runtime.run(images, sizes_hw), onnx_runtime.run(images, sizes_hw)
    assert compare(ours, theirs).num_compared >= 18 * count
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert one.device == other.device == torch.device("cpu")
    right = ours.boxes_xyxy_px[..., 2].amax(1)
    assert torch.all(right > 0.4 * sizes_hw[:, 1])


@pytest.mark.parametrize(
    ("shape", "dtype", "sizes"),
    [
        ((1, 3, 96, 64), torch.float32, torch.ones(1, 2, dtype=torch.int64)),
        ((0, 3, 64, 96), torch.float32, torch.ones(0, 2, dtype=torch.int64)),
        ((1, 3, 64, 96), torch.uint8, torch.ones(1, 2, dtype=torch.int64)),
        ((1, 3, 64, 96), torch.float32, torch.ones(2, 2, dtype=torch.int64)),
        ((1, 3, 64, 96), torch.float32, torch.ones(1, 2)),
    ],
)
def test_both_refuse_what_is_not_a_batch(
    onnx_runtime: OnnxRuntime,
    torch_runtime: TorchRuntime,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    sizes: torch.Tensor,
) -> None:
    for runtime in (onnx_runtime, torch_runtime):
        with pytest.raises(ValueError, match="came, expected"):
            runtime.run(torch.zeros(shape, dtype=dtype), sizes)


def test_files_that_cannot_be_used_are_named(exported: Exported, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.path.read_bytes()[:2000])
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    for path in (broken, text):
        with pytest.raises(ValueError, match=f"{path.name}: ONNX Runtime cannot read this file"):
            OnnxRuntime(path)
    with pytest.raises(ValueError, match="absent.onnx: no such file"):
        OnnxRuntime(tmp_path / "absent.onnx")


def test_a_foreign_model_is_refused(exported: Exported, tmp_path: Path) -> None:
    proto = onnx.load(exported.path)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match=r"bare\.onnx: its metadata has format_version None"):
        OnnxRuntime(tmp_path / "bare.onnx")
    proto.graph.output[0].name = "classes"
    for node in proto.graph.node:
        node.output[:] = ["classes" if name == "labels" else name for name in node.output]
        node.input[:] = ["classes" if name == "labels" else name for name in node.input]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"gives \['boxes', 'classes', 'scores'\], expected"):
        OnnxRuntime(tmp_path / "other.onnx")


def test_a_compiled_model_detects_the_same(
    torch_runtime: TorchRuntime, tiny: DeployModel, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounter()
    stated: dict[str, object] = {}

    def compile_counting(model: torch.nn.Module, **options: object) -> object:
        stated.update(options)
        return compile_for_real(model, backend=counter, fullgraph=True)

    compile_for_real = torch.compile
    monkeypatch.setattr(torch, "compile", compile_counting)
    compiled = TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw, compiled=True)
    images, sizes_hw = pictures(2, (64, 96), seed=5), torch.tensor([[480, 640], [333, 100]])
    for one, other in zip(torch_runtime.run(images, sizes_hw), compiled.run(images, sizes_hw), strict=True):
        torch.testing.assert_close(one, other)
    assert counter.frame_count == 1
    assert stated == {"mode": "reduce-overhead", "fullgraph": True}


@pytest.mark.slow
@pytest.mark.usefixtures("inductor")
def test_what_inductor_makes_of_a_model_detects_the_same(tiny: DeployModel, card: ModelCard) -> None:
    metrics.reset()
    plain, compiled = (
        TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw, compiled=compiled)
        for compiled in (False, True)
    )
    for seed in (5, 6):
        images, sizes_hw = pictures(2, (64, 96), seed=seed), torch.tensor([[480, 640], [333, 100]])
        expected, given = plain.run(images, sizes_hw), compiled.run(images, sizes_hw)
        torch.testing.assert_close(given.labels, expected.labels)
        torch.testing.assert_close(given.scores, expected.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(given.boxes_xyxy_px, expected.boxes_xyxy_px, rtol=0, atol=1e-2)
    assert metrics.generated_kernel_count > 0
