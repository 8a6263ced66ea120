"""Nodes of an exported graph are called by the module that they are part of.

A person who looks at the file finds the model's parts in it, and so does what treats them differently: half
precision, quantisation.
"""

import ast
import collections
from typing import Any

WEIGHTED = ("Conv", "Gemm", "MatMul")
SCOPES = "pkg.torch.onnx.name_scopes"  # torch's exporter: the modules around an operator, and its own name


def name_nodes(proto: Any) -> None:
    """Give each node of a fresh export the name `module/Operator`, numbered where a module has several.

    Args:
        proto: ONNX ModelProto with the exporter's notes. Nodes that its optimisers put in have none, and
            belong to the module that what they take comes from.
    """
    module_of: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for node in proto.graph.node:
        notes = {one.key: one.value for one in node.metadata_props}
        if SCOPES in notes:
            module = ast.literal_eval(notes[SCOPES])[-2]
            module = "" if module.startswith("_") else module  # torch's own word for none
        else:
            module = next((module_of[name] for name in node.input if name in module_of), "")
        module_of.update(dict.fromkeys(node.output, module))
        name = f"{module}/{node.op_type}"
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"


def check_names(proto: Any) -> None:
    """Refuse a graph whose layers with weights cannot be told by their names.

    Args:
        proto: ONNX ModelProto.

    Raises:
        ValueError: A layer with weights tells no module.
    """
    weights = {one.name for one in proto.graph.initializer}
    layers = [node for node in proto.graph.node if node.op_type in WEIGHTED]
    nameless = [one.name for one in layers if not weights.isdisjoint(one.input) and "/" not in one.name[1:]]
    if nameless:
        raise ValueError(
            f"{len(nameless)} layers with weights tell no module, such as '{nameless[0]}', and by its module "
            "it is known what may be rounded; export it again without --simplify"
        )
