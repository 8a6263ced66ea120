"""An exported graph in half precision where that is safe, and in float32 where numbers need range or digits.

In float16 are the layers with weights, and what stands between them in backbone and encoder. In float32 stay:
pixels and their normalisation, norms, attention (positions, scores, softmax and what it reads), resizing, all
arithmetic of the decoder between its layers (boxes, distances, sampling places, the choice of queries), and
post-processing. onnxruntime's converter does not serve here: it rounds what goes from one float32 node to the
next to float16, too, so that boxes end in steps of half a pixel.
"""

from typing import Any

import numpy as np

from ..extras import require
from .node_names import WEIGHTED, check_names

PARTS = ("model.backbone", "model.encoder")
BETWEEN = frozenset(
    "Add AveragePool Concat Div Erf Expand Flatten GlobalAveragePool HardSigmoid MaxPool Mul Pad Relu "
    "Reshape Sigmoid Slice Split Squeeze Transpose Unsqueeze".split()
)
LARGEST = float(np.finfo(np.float16).max)


def to_half(proto: Any) -> None:
    """Bring a graph whose nodes `name_nodes` named into half precision; inputs and outputs keep their types.

    Args:
        proto: ONNX ModelProto in float32, changed in place.

    Raises:
        ValueError: A weight is beyond float16's range, or a layer with weights tells no module.
    """
    check_names(proto)
    onnx = require("onnx")
    graph = proto.graph
    typed = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    floats = {
        one.name
        for one in (*typed.value_info, *typed.input, *typed.output)
        if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    weights = {one.name: one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    outputs = {one.name for one in graph.output}
    chosen = {node.name for node in graph.node if _is_safe(node, weights) and outputs.isdisjoint(node.output)}
    halves = {name for node in graph.node if node.name in chosen for name in node.output if name in floats}
    nodes: list[Any] = []
    made: dict[tuple[str, str], str] = {}  # (tensor, type) to its name in that type

    def cast(name: str, kind: str, suffix: str, module: str) -> str:
        if (name, kind) not in made:
            made[name, kind] = f"{name}_{suffix}"
            to = getattr(onnx.TensorProto, kind)
            node_name = f"{module}/Cast_{name}_{suffix}"
            nodes.append(onnx.helper.make_node("Cast", [name], [made[name, kind]], name=node_name, to=to))
        return made[name, kind]

    def constant(name: str) -> str:
        if (name, "FLOAT16") not in made:
            made[name, "FLOAT16"] = f"{name}_half"
            values = _rounded(onnx.numpy_helper.to_array(weights[name]), name)
            graph.initializer.append(onnx.numpy_helper.from_array(values, f"{name}_half"))
        return made[name, "FLOAT16"]

    for node in graph.node:
        module = node.name.rpartition("/")[0]
        in_half = node.name in chosen
        for index, name in enumerate(node.input):
            if in_half and name in weights:
                node.input[index] = constant(name)
            elif in_half and name in floats and name not in halves:
                node.input[index] = cast(name, "FLOAT16", "half", module)
            elif not in_half and name in halves:
                node.input[index] = cast(name, "FLOAT", "float", module)
        nodes.append(node)
    del graph.value_info[:]  # of the types before
    _replace(graph, nodes)


def _is_safe(node: Any, weights: dict[str, Any]) -> bool:
    """Whether a node may compute in float16."""
    module, _, _ = node.name.rpartition("/")
    if node.op_type in WEIGHTED:
        return module.startswith("model.") and any(name in weights for name in node.input)
    attends = module.endswith("attn")
    in_part = any(module == part or module.startswith(f"{part}.") for part in PARTS)
    return in_part and not attends and node.op_type in BETWEEN


def _rounded(values: Any, name: str) -> Any:
    """Weights in float16, those next to nothing as nothing."""
    if np.abs(values).max(initial=0) > LARGEST:
        raise ValueError(f"the weights {name} reach {np.abs(values).max():.3g}, float16 ends at {LARGEST:g}")
    return values.astype(np.float16)


def _replace(graph: Any, nodes: list[Any]) -> None:
    """Make `nodes` the graph's, without constants that nothing takes any more."""
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    initializers = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
