"""An exported detector in 8 bits: ONNX Runtime's static quantisation of its backbone and encoder.

Quantised are multiplications with weights, linear layers and convolutions: the weights, with one scale a
channel, and what they are multiplied with. Attention's products of two activations, norms and activation
functions stay in float32. So does the decoder: it is a small part of the work, its boxes are sums of small
distances and its queries the highest of many scores. Detectors of this family whose decoder is in 8 bits have
been seen to find next to nothing (ultralytics #26191), and OpenVINO 2026.4 cannot compile such a file of
`dfine_dinov3_s_coco`.
"""

import contextlib
import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...files import staged_folder, write_whole
from ..extras import require
from ..predictor import prepare
from ..runtimes import OnnxRuntime
from ..samples import NUM_REAL, Samples, try_out
from ..sources import read
from .calibration import Calibration
from .node_names import WEIGHTED, check_names

METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
"""What range of a value the 8 bits stand for, as ONNX Runtime calls it: all that was seen; all but 1 in
100,000 at either end; the one that keeps most information."""

KEPT_FLOAT = ("model.decoder",)
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # keeps the library from asking for what is done


class Quantized(NamedTuple):
    """What was written.

    Attributes:
        path: The file.
        size_bytes: Its size.
        num_quantized: Layers with weights that are in 8 bits.
        num_float: Layers with weights that are in float32.
        kept_float: The modules that these are in.
        method: How ranges of activations were found.
        signed: Whether activations are signed.
        num_pictures: Pictures that ranges were found with.
    """

    path: Path
    size_bytes: int
    num_quantized: int
    num_float: int
    kept_float: tuple[str, ...]
    method: str
    signed: bool
    num_pictures: int

    def facts(self) -> dict[str, Any]:
        """How it was made, in plain values."""
        return {key: value for key, value in self._asdict().items() if key != "path"}


def quantize(
    source: Path,
    path: Path,
    pictures: Sequence[Path],
    *,
    method: str = "minmax",
    signed: bool = False,
    kept_float: Sequence[str] = KEPT_FLOAT,
) -> Quantized:
    """Write an exported detector in 8 bits, whole or not at all, once it has been run on pictures.

    Args:
        source: What `export_onnx` wrote, in float32.
        path: Where to; it keeps all that the source says of itself.
        pictures: Pictures like those that it will see, which give the ranges of activations.
        method: How ranges are found, one of `METHODS`.
        signed: Take signed activations around zero, as TensorRT asks for; unsigned ones are faster on x86.
        kept_float: Modules that stay in float32, with all that is in them.

    Raises:
        ValueError: A file is missing, broken or of another kind, an option is out of range, or what was
            written cannot be run.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"{path.name}: a file in 8 bits must end in .onnx")
    if method not in METHODS:
        raise ValueError(f"method '{method}' is unknown: {', '.join(METHODS)}")
    onnx = require("onnx")
    runtime = OnnxRuntime(source)
    proto = onnx.load(source)
    chosen, rest = _layers(proto, source, kept_float)
    quantized = _quantized(proto, chosen, Calibration(pictures, runtime), method, signed)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(proto.metadata_props)
    onnx.checker.check_model(quantized)
    data = quantized.SerializeToString()
    with staged_folder(path.parent) as folder:
        write_whole(folder / path.name, data)
        try_out(OnnxRuntime(folder / path.name), path.name, _first(pictures, runtime))
    kept = tuple(kept_float)
    return Quantized(path, len(data), len(chosen), len(rest), kept, method, signed, len(pictures))


def _first(pictures: Sequence[Path], runtime: OnnxRuntime) -> Samples:
    """The first of the pictures that it was calibrated on."""
    images = [frame.image for frame in read(list(pictures[:NUM_REAL]))]
    prepared = prepare(images, runtime.input_hw, keep_ratio=runtime.keep_ratio)
    return Samples(*prepared, "pictures that it was calibrated on")


def _layers(proto: Any, source: Path, kept_float: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the nodes with weights: those to quantise, and those to keep."""
    onnx = require("onnx")
    weights = {one.name: one.data_type for one in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type in WEIGHTED and node.input[1] in weights]
    types = {onnx.TensorProto.DataType.Name(weights[node.input[1]]) for node in nodes}
    quantized = any(node.op_type == "QuantizeLinear" for node in proto.graph.node)
    if quantized or types != {"FLOAT"}:
        raise ValueError(
            f"{source}: is no detector in float32; quantise what tools/deployment/export_onnx.py writes "
            "without --fp16"
        )
    try:
        check_names(proto)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    modules = {node.name: node.name.rpartition("/")[0] for node in nodes}
    for prefix in ("model.backbone", "model.encoder", *kept_float):
        if not any(_inside(module, prefix) for module in modules.values()):
            known = sorted({".".join(module.split(".")[:2]) for module in modules.values()})
            raise ValueError(
                f"{source}: no layer with weights is in '{prefix}'; there are {', '.join(known)} (a file of "
                "another version has other names: export it again)"
            )
    kept = [name for name, module in modules.items() if any(_inside(module, one) for one in kept_float)]
    return [name for name in modules if name not in set(kept)], kept


def _inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def _quantized(proto: Any, nodes: Sequence[str], calibration: Calibration, method: str, signed: bool) -> Any:
    """The ONNX ModelProto with these nodes in 8 bits."""
    onnx, library = require("onnx"), require("onnxruntime.quantization")
    prepared = copy.deepcopy(proto)
    entry = prepared.metadata_props.add()
    entry.key, entry.value = PREPARED
    target = io.BytesIO()
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints its steps
        library.quantize_static(
            prepared,
            target,
            calibration,
            nodes_to_quantize=list(nodes),
            op_types_to_quantize=list(WEIGHTED),
            per_channel=True,
            weight_type=library.QuantType.QInt8,
            activation_type=library.QuantType.QInt8 if signed else library.QuantType.QUInt8,
            calibrate_method=library.CalibrationMethod[METHODS[method]],
            extra_options={
                "ActivationSymmetric": signed,
                "CalibStridedMinMax": 1,  # one picture's activations at a time in memory
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            },
        )
    return onnx.load_model_from_string(target.getvalue())
