"""ONNX for those of torch's operators that torch's own exporter writes with more nodes than they need."""

import math
from collections.abc import Callable
from typing import Any

import torch

from ..extras import require


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How `torch.onnx.export` shall write them: its `custom_translation_table`.

    Raises:
        ValueError: onnxscript is not installed.
    """
    op = require("onnxscript").opset18

    def attention(
        queries: Any,
        keys: Any,
        values: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        # torch's exporter transposes keys by way of their shape, in eight nodes, and scales both sides.
        assert attn_mask is None and not dropout_p and not is_causal and not enable_gqa, "not in inference"
        if scale is None:
            scale = 1 / math.sqrt(queries.shape[-1])
        if scale != 1:
            queries = op.Mul(queries, scale)
        scores = op.MatMul(queries, op.Transpose(keys, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(scores, axis=-1), values)

    def gelu(x: Any, approximate: str = "none") -> Any:
        # The order in which ONNX Runtime knows it again and makes it one pass over the tensor.
        assert approximate == "none", "no activation of ours is approximate"
        grown = op.Add(op.Erf(op.Div(x, math.sqrt(2.0))), 1.0)
        return op.Mul(op.Mul(x, grown), 0.5)

    aten = torch.ops.aten
    return {aten.scaled_dot_product_attention.default: attention, aten.gelu.default: gelu}
