import copy
import importlib
import json
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from src.deploy.export.onnx_graph import DeployModel, Exported, GraphOptions, export_onnx
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime
from src.deploy.samples import pictures
from tests.exported import verify_onnx

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")


def test_forward_takes_width_before_height(tiny: DeployModel) -> None:
    images = pictures(1, (64, 96))
    labels, wide, scores = tiny(images, torch.tensor([[200, 100]]))
    _, square, _ = tiny(images, torch.tensor([[100, 100]]))
    assert labels.shape == scores.shape == (1, 20)
    assert labels.dtype == torch.int64
    torch.testing.assert_close(wide, square * torch.tensor([2.0, 1.0, 2.0, 1.0]))


def test_file_is_what_consumers_expect(exported: Exported) -> None:
    proto = onnx.load(exported.path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    dims = {
        one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim]
        for one in (*proto.graph.input, *proto.graph.output)
    }
    assert dims == {
        "images": ["N", 3, 64, 96],
        "orig_target_sizes": ["N", 2],
        "labels": ["N", 20],
        "boxes": ["N", 20, 4],
        "scores": ["N", 20],
    }
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [18]
    assert os.listdir(exported.path.parent) == ["tiny.onnx"]
    assert not any(weight.external_data for weight in proto.graph.initializer)


def test_figures_are_those_of_the_file(exported: Exported) -> None:
    proto = onnx.load(exported.path)
    assert exported.num_nodes == len(proto.graph.node) == sum(exported.operators.values())
    assert exported.operators["LayerNormalization"] == 1
    assert "GridSample" not in exported.operators
    assert exported.size_bytes == exported.path.stat().st_size


def test_metadata_names_the_classes_and_no_path_of_this_machine(exported: Exported) -> None:
    properties = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    assert json.loads(properties["class_names"]) == ["cat", "dog", "owl"]
    assert json.loads(properties["class_ids"]) == [1, 7, 90]
    assert json.loads(properties["input_size_hw"]) == [64, 96]
    assert b".py" not in exported.path.read_bytes()


@pytest.mark.parametrize("batch", [1, 3])
def test_agrees_with_pytorch_at_another_batch_size(exported: Exported, tiny: DeployModel, batch: int) -> None:
    agreement = verify_onnx(exported.path, tiny, batch=batch)
    assert agreement.batch == batch
    assert agreement.num_compared >= 0.9 * 20 * batch
    assert agreement.max_score_diff <= 1e-4
    assert agreement.max_box_diff_px <= 0.05


def test_verification_finds_another_model(exported: Exported, tiny: DeployModel) -> None:
    torch.manual_seed(3)
    other = DeployModel(type(tiny.model)(), tiny.postprocessor).eval()
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    with pytest.raises(
        ValueError, match=r"tiny\.onnx and PyTorch do not agree on made-up pictures: picture 0"
    ):
        verify_onnx(exported.path, other)


def test_opset_20_and_fixed_batch(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    done = export_onnx(tiny, tmp_path / "new" / "fixed.onnx", card, GraphOptions(20, 2))
    proto = onnx.load(done.path)
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [20]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert done.operators["LayerNormalization"] == 1
    runtime = OnnxRuntime(done.path)
    assert runtime.batch == 2
    assert verify_onnx(done.path, tiny, batch=3).batch == 3


@pytest.mark.parametrize(
    ("knobs", "message"), [({"opset": 17}, "opset 17 .* 18 to 20"), ({"batch": 0}, "batch 0")]
)
def test_options_out_of_range(
    tiny: DeployModel, card: ModelCard, tmp_path: Path, knobs: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export_onnx(tiny, tmp_path / "x.onnx", card, GraphOptions(**knobs))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_its_remedy(
    tiny: DeployModel, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = importlib.import_module

    def without(wanted: str) -> ModuleType:
        if wanted == name:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(wanted)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(
        ValueError, match=f"'{name}' is not installed; run: pip install -r requirements-export.txt"
    ):
        export_onnx(tiny, tmp_path / "x.onnx", card)


def test_a_model_in_training_mode_is_a_fault_of_ours(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="eval mode"):
        export_onnx(DeployModel(nn.Identity(), nn.Identity()), tmp_path / "x.onnx", card)


def test_simplified_is_the_same_with_no_more_nodes(
    exported: Exported, tiny: DeployModel, card: ModelCard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxslim", reason="pip install -r requirements-export.txt")
    with caplog.at_level(logging.INFO):
        simple = export_onnx(tiny, tmp_path / "simple.onnx", card, GraphOptions(simplify=True))
    assert f"onnxslim: {exported.num_nodes} nodes became {simple.num_nodes}" in caplog.text
    assert simple.num_nodes <= exported.num_nodes
    one, other = (onnx.load(done.path).metadata_props for done in (exported, simple))
    assert {entry.key: entry.value for entry in one} == {entry.key: entry.value for entry in other}
    assert verify_onnx(simple.path, tiny, batch=1).num_compared > 10


def test_a_graph_that_onnxslim_does_not_shorten_stays_as_it_was(
    exported: Exported, tiny: DeployModel, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxslim = pytest.importorskip("onnxslim", reason="pip install -r requirements-export.txt")

    def lengthened(proto: Any, **_: Any) -> Any:
        grown = copy.deepcopy(proto)
        first = grown.graph.output[0]
        grown.graph.node.append(onnx.helper.make_node("Identity", [first.name], ["needless"]))
        return grown

    monkeypatch.setattr(onnxslim, "slim", lengthened)
    kept = export_onnx(tiny, tmp_path / "kept.onnx", card, GraphOptions(simplify=True))
    assert kept.num_nodes == exported.num_nodes
