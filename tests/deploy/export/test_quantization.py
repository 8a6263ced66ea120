"""Backbone and encoder in 8 bits, all else as it was, and the price told."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from parted import export_parted

from src.deploy.comparison import conversion, files
from src.deploy.detector import Detector
from src.deploy.export import quantization
from src.deploy.export.onnx_graph import DeployModel, GraphOptions
from src.deploy.export.quantization import KEPT_FLOAT, METHODS, quantize
from src.deploy.metadata import ModelCard
from src.deploy.predictor import prepare
from src.deploy.runtimes import OnnxRuntime
from src.deploy.samples import Samples, made_up
from src.deploy.sources import find_pictures, read

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
PLACES = ["model.backbone.stem", "model.encoder.mix", "model.encoder.self_attn", "model.encoder.self_attn"]


@pytest.fixture(scope="module")
def quantized(parted_file: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    told = quantize(parted_file, path, find_pictures(photographs))
    assert told.size_bytes == path.stat().st_size
    assert (told.num_quantized, told.num_float, told.num_pictures) == (4, 1, 5)
    return path


def fed_by(path: Path) -> dict[str, list[str]]:
    """For each layer, the operators that its two inputs come from ("" for weights in float32)."""
    graph = onnx.load(path).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return {node.name: [maker.get(name, "") for name in node.input[:2]] for node in layers}


def test_layers_of_backbone_and_encoder_are_in_8_bits(quantized: Path) -> None:
    layers = fed_by(quantized)
    in_8_bits = [name for name, makers in layers.items() if makers == ["DequantizeLinear"] * 2]
    assert sorted(name.partition("/")[0] for name in in_8_bits) == PLACES
    assert layers["model.decoder.head/MatMul"][1] == ""
    scores = [makers for makers in layers.values() if "" not in makers and "DequantizeLinear" not in makers]
    assert len(scores) == 2  # attention's products of activations
    graph = onnx.load(quantized).graph
    by_name = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    weights = [one for one in by_name.values() if one.dtype == np.int8 and one.ndim > 1]
    assert len(weights) == len(PLACES)
    stem = next(one for name, one in by_name.items() if name.startswith("model.backbone.stem.weight_sc"))
    assert stem.shape == (16,)  # a scale for each channel


def test_it_opens_as_any_other(quantized: Path, parted_file: Path, photographs: Path) -> None:
    before, after = onnx.load(parted_file), onnx.load(quantized)
    assert after.metadata_props == before.metadata_props
    assert [one.name for one in after.graph.output] == [one.name for one in before.graph.output]
    results = Detector.load(quantized, num_threads=1)(photographs, threshold=0.0)
    assert len(list(results)) == 5


def test_it_finds_nearly_the_same(quantized: Path, parted_file: Path) -> None:
    samples = made_up((64, 96))
    found, expected = (
        OnnxRuntime(path, num_threads=1).run(samples.images, samples.sizes_hw)
        for path in (quantized, parted_file)
    )
    assert 0 < (found.scores - expected.scores).abs().max() < 0.05


@pytest.mark.parametrize("method", [name for name in METHODS if name != "minmax"])
def test_ranges_by_another_method(
    quantized: Path,
    parted_file: Path,
    photographs: Path,
    tmp_path: Path,
    method: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quantize(parted_file, tmp_path / "other.onnx", find_pictures(photographs), method=method)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "other.onnx").read_bytes() != quantized.read_bytes()


def test_signed_activations_lie_around_zero(parted_file: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "signed.onnx"
    kept = (*KEPT_FLOAT, "model.encoder.self_attn")
    quantize(parted_file, path, find_pictures(photographs), signed=True, kept_float=kept)
    graph = onnx.load(path).graph
    zero_points = {name for node in graph.node if node.op_type == "QuantizeLinear" for name in node.input[2:]}
    values = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name in zero_points]
    assert values and all(one.dtype == np.int8 and not one.any() for one in values)
    assert sum(makers == ["DequantizeLinear"] * 2 for makers in fed_by(path).values()) == 2


def test_a_simplified_graph_of_fixed_batch_is_in_8_bits_as_any(
    tiny: DeployModel, card: ModelCard, photographs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxslim", reason="pip install -r requirements-export.txt")
    options = GraphOptions(batch=1, simplify=True)
    export_parted(tiny.postprocessor, tmp_path / "simple.onnx", card, options)
    told = quantize(tmp_path / "simple.onnx", tmp_path / "int8.onnx", find_pictures(photographs))
    assert (told.num_quantized, told.num_float) == (4, 1)
    assert fed_by(told.path)["model.decoder.head/MatMul"][1] == ""


def test_what_cannot_be_quantised_is_refused(
    quantized: Path, parted_file: Path, photographs: Path, tmp_path: Path
) -> None:
    path, files = tmp_path / "out.onnx", find_pictures(photographs)
    with pytest.raises(ValueError, match="int8.onnx: is no detector in float32"):
        quantize(quantized, path, files)
    with pytest.raises(ValueError, match="method 'mean' is unknown: minmax, percentile, entropy"):
        quantize(parted_file, path, files, method="mean")
    with pytest.raises(
        ValueError, match="no layer with weights is in 'model.neck'; there are model.backbone"
    ):
        quantize(parted_file, path, files, kept_float=["model.neck"])
    proto = onnx.load(parted_file)
    for node in proto.graph.node:
        node.name = node.name.replace("/", "_")
    onnx.save(proto, tmp_path / "older.onnx")
    with pytest.raises(
        ValueError, match=r"older\.onnx: 5 layers .* such as 'model\.backbone\.stem_Conv'.*export it again"
    ):
        quantize(tmp_path / "older.onnx", path, files)
    assert not path.exists()


def test_values_that_are_not_finite_leave_no_file(
    parted_file: Path, photographs: Path, tmp_path: Path
) -> None:
    proto = onnx.load(parted_file)
    for one in proto.graph.initializer:
        if one.name == "model.decoder.head.bias":
            one.CopyFrom(onnx.numpy_helper.from_array(np.full(7, np.nan, np.float32), one.name))
    onnx.save(proto, tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match="not finite"):
        quantize(tmp_path / "broken.onnx", tmp_path / "out" / "int8.onnx", find_pictures(photographs))
    assert not (tmp_path / "out").exists()


def test_it_is_tried_on_the_pictures_it_was_calibrated_on(
    parted_file: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Samples] = []
    monkeypatch.setattr(quantization, "try_out", lambda *arguments: tried.append(arguments[2]))
    quantize(parted_file, tmp_path / "int8.onnx", find_pictures(photographs)[1:3])
    images = [frame.image for frame in read(list(find_pictures(photographs)[1:3]))]
    torch.testing.assert_close(tried[0].images, prepare(images, (64, 96))[0], atol=0, rtol=0)
    assert tried[0].sizes_hw.tolist() == [[47, 60], [46, 60]]


def test_the_door_takes_the_checkpoint_into_the_table(
    parted_file: Path, photographs: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def compared(paths: list[Path], *, config: Path, **_: object) -> None:
        raise ValueError(f"{', '.join(path.name for path in paths)} by {config}")

    monkeypatch.setattr(conversion, "compare_files", compared)
    door = repo_root / "tools/deployment/quantize.py"
    options = [
        "--pictures",
        photographs,
        "-r",
        "best.pth",
        "-c",
        "best.yml",
        "-o",
        tmp_path / "new" / "q.onnx",
    ]
    monkeypatch.setattr(sys, "argv", [str(one) for one in (door, "-m", parted_file, *options)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(door), run_name="__main__")
    assert end.value.code == 2
    assert "best.pth, parted.onnx, q.onnx by best.yml" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_door_tells_the_price(
    parted_file: Path, photographs: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(files, "SETTLE_S", 0.0)
    monkeypatch.setattr(files, "WARM_UP", 0)
    door = repo_root / "tools/deployment/quantize.py"
    output = tmp_path / "small.onnx"
    options = ["--pictures", str(photographs), "--num-pictures", "2", "--threads", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [str(door), "-m", str(parted_file), "-o", str(output), *options])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(door), run_name="__main__")
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert "calibrated on 2 pictures; 4 layers with weights are in 8 bits, 1 in float32" in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == ["parted.onnx", "small.onnx"]
    report = json.loads((tmp_path / "export.json").read_text())["small.onnx"]
    assert report["verified"] is None
    assert (report["method"], report["num_pictures"], report["kept_float"]) == (
        "minmax",
        2,
        ["model.decoder"],
    )
    assert [one["label"] for one in report["files"]] == ["parted.onnx", "small.onnx"]
