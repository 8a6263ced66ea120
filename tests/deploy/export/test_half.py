"""Half precision where it is safe: inputs, outputs and all that needs range or digits stay in float32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parted import export_parted, parted

from src.deploy.agreement import HALF, Agreement, compare
from src.deploy.export import half
from src.deploy.export.node_names import WEIGHTED
from src.deploy.export.onnx_graph import DeployModel, Exported, GraphOptions, export_onnx
from src.deploy.export.verify import Evidence
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime
from src.deploy.samples import made_up
from src.structures import Detections

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
IN_HALF = GraphOptions(half=True)


def detect(path: Path, input_hw: tuple[int, int], wide: int = 640) -> tuple[np.ndarray, ...]:
    """Labels, boxes and scores by ONNX's reference, which rounds after every single node."""
    images = made_up(input_hw).images.numpy()
    sizes_wh = np.array([[wide, 480]] * len(images))
    evaluator = onnx.reference.ReferenceEvaluator(str(path))
    return tuple(evaluator.run(None, {"images": images, "orig_target_sizes": sizes_wh}))


def expected(deploy: DeployModel, input_hw: tuple[int, int], wide: int = 640) -> Detections:
    images = made_up(input_hw).images
    with torch.no_grad():
        return Detections(*deploy(images, torch.tensor([[wide, 480]] * len(images))))


@pytest.fixture(scope="module")
def written(
    tiny: DeployModel, card: ModelCard, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, DeployModel]:
    """A file in half precision, and what it was made from."""
    path = tmp_path_factory.mktemp("half") / "half.onnx"
    return path, export_parted(tiny.postprocessor, path, card, IN_HALF)


def test_layers_are_in_half_and_the_rest_is_not(
    written: tuple[Path, DeployModel], exported: Exported
) -> None:
    proto, whole = onnx.load(written[0]), onnx.load(exported.path)
    weights = {
        one.name: one.data_type for one in proto.graph.initializer if one.data_type in (FLOAT, FLOAT16)
    }
    layers = [node for node in proto.graph.node if node.op_type in WEIGHTED]
    types = {node.name: [weights[name] for name in node.input if name in weights] for node in layers}
    assert types.pop("model.encoder.self_attn/MatMul_2") == []  # scores: both are activations
    assert types.pop("model.encoder.self_attn/MatMul_3") == []
    assert "model.decoder.head/MatMul" in types
    assert {kind for kinds in types.values() for kind in kinds} == {FLOAT16}
    norm = next(node for node in proto.graph.node if node.op_type == "LayerNormalization")
    assert {weights[name] for name in norm.input[1:]} == {FLOAT}
    assert proto.graph.input == whole.graph.input
    assert proto.graph.output == whole.graph.output
    assert proto.metadata_props == whole.metadata_props


def test_a_simplified_graph_of_fixed_batch_is_in_half_as_any(
    tiny: DeployModel, card: ModelCard, tmp_path: Path
) -> None:
    pytest.importorskip("onnxslim", reason="pip install -r requirements-export.txt")
    options = GraphOptions(batch=2, simplify=True, half=True)
    export_parted(tiny.postprocessor, tmp_path / "simple.onnx", card, options)
    graph = onnx.load(tmp_path / "simple.onnx").graph
    weights = {one.name: one.data_type for one in graph.initializer}
    layers = {
        node.name: weights[node.input[1]]
        for node in graph.node
        if node.op_type in WEIGHTED and node.input[1] in weights
    }
    assert len(layers) == 5
    assert set(layers.values()) == {FLOAT16}


def test_layers_that_tell_no_module_are_refused(parted_file: Path) -> None:
    proto = onnx.load(parted_file)
    next(node for node in proto.graph.node if node.name == "model.decoder.head/MatMul").name = "val_49"
    with pytest.raises(ValueError, match=r"1 layers .* 'val_49'.*without --simplify"):
        half.to_half(proto)


def test_finds_what_pytorch_finds(written: tuple[Path, DeployModel], card: ModelCard) -> None:
    path, deploy = written
    samples = made_up(card.input_hw)
    found = OnnxRuntime(path, num_threads=1).run(samples.images, samples.sizes_hw)
    with torch.no_grad():
        reference = Detections(*deploy(samples.images, samples.sizes_hw.flip(-1)))
    assert compare(reference, found, HALF).num_compared > 20
    assert not torch.equal(reference.scores, found.scores)


def test_norms_and_boxes_keep_their_range(
    tiny: DeployModel, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card._replace(input_hw=(64, 56))  # the reference gathers from 63 cells at most
    deploy = parted(tiny.postprocessor)
    with torch.no_grad():
        deploy.model.backbone.stem.weight *= 3000  # type: ignore[union-attr, operator]
    safe, careless = tmp_path / "safe.onnx", tmp_path / "careless.onnx"
    export_onnx(deploy, tmp_path / "whole.onnx", card)
    save_half(tmp_path / "whole.onnx", safe)
    wide = 100_000  # boxes are beyond 65,504, too
    labels, boxes, scores = detect(safe, card.input_hw, wide)
    assert boxes.max() > 65_504
    found = Detections(torch.tensor(labels), torch.tensor(boxes), torch.tensor(scores))
    compare(expected(deploy, card.input_hw, wide), found, HALF._replace(box_px=2e-3 * wide))
    monkeypatch.setattr(half, "BETWEEN", half.BETWEEN | {"LayerNormalization"})
    save_half(tmp_path / "whole.onnx", careless)
    with np.errstate(all="ignore"):
        _, boxes, scores = detect(careless, card.input_hw)
    reference = expected(deploy, card.input_hw)
    off = np.abs(np.nan_to_num(scores, nan=np.inf) - reference.scores.numpy()).max()
    assert off > 0.1


def save_half(source: Path, path: Path) -> None:
    proto = onnx.load(source)
    half.to_half(proto)
    onnx.save(proto, path)


def test_weights_beyond_its_range_are_refused(parted_file: Path) -> None:
    proto = onnx.load(parted_file)
    stem = next(one for one in proto.graph.initializer if one.name == "model.backbone.stem.weight")
    values = onnx.numpy_helper.to_array(stem).copy()
    values[0, 0, 0, 0] = 70_000
    stem.CopyFrom(onnx.numpy_helper.from_array(values, stem.name))
    with pytest.raises(ValueError, match=r"stem\.weight reach 7e\+04, float16 ends at 65504"):
        half.to_half(proto)


def test_where_nothing_can_be_compared_it_is_said() -> None:
    evidence = Evidence("made-up pictures", HALF, Agreement(3, 0, 0, 0.0, 0.0), None)
    assert (
        evidence.text() == "runs, but was not compared with PyTorch: no score on made-up pictures reaches 0.3"
    )
    evidence = Evidence("made-up pictures", HALF, Agreement(3, 20, 0, 0.001, 0.5, 1), None)
    assert evidence.text().endswith("on made-up pictures; 1 more found no such counterpart")
