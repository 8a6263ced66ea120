import pytest

from src.deploy.export.onnx_graph import Exported

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")


def test_nodes_are_called_by_their_module(exported: Exported) -> None:
    nodes = onnx.load(exported.path).graph.node
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    for known in ("model.stem/Conv", "model.norm/LayerNormalization", "model.head/MatMul"):
        assert known in names
    modules = {
        node.name.rpartition("/")[0] for node in nodes if node.op_type in ("MatMul", "Softmax", "TopK")
    }
    assert modules == {"model.mix", "model.head", "postprocessor"}


def test_nodes_that_optimisers_put_in_belong_where_their_input_comes_from(exported: Exported) -> None:
    splits = [node for node in onnx.load(exported.path).graph.node if node.op_type == "Split"]
    assert splits
    assert all(node.name.startswith(("model.mix/", "postprocessor/", "model/")) for node in splits)
