"""One self-contained ONNX file of a detector, by torch's current exporter."""

import collections
import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...files import write_whole
from ...structures import Detections, FinalOutput
from ..extras import require
from ..lean import make_lean
from ..metadata import INPUTS, OUTPUTS, ModelCard, to_properties
from .half import to_half
from .node_names import name_nodes
from .onnx_ops import translations

logger = logging.getLogger(__name__)

# Below 17 a LayerNorm falls apart into steps that overflow in float16 (DeepStream-Yolo #647: no detections);
# torch's exporter writes 18 and up by itself, and conversion downwards leaves nodes that the checker refuses.
OPSETS = range(18, 21)
MAX_FOLDED = 2**22  # numbers in a constant that the file may hold instead of the nodes that make it
# onnxslim's name for what makes Reshape, Gemm, Reshape of MatMul, Add where the batch is fixed; the new nodes
# tell no module, by which half precision and quantisation choose.
LENGTHENING = "FusionGemm"
TRACED_BATCH = 2  # torch.export takes a batch of 1 for a constant


class DeployModel(nn.Module):
    """A detector as D-FINE's consumers call it: pixels in, final detections out."""

    def __init__(self, model: nn.Module, postprocessor: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.postprocessor = postprocessor

    def forward(self, images: Tensor, orig_target_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            images: [N, 3, H, W] float RGB in [0, 1]; the model normalises by itself.
            orig_target_sizes: [N, 2] int64, (width, height) of each picture as stored.

        Returns:
            labels [N, K] int64 contiguous from 0, boxes [N, K, 4] xyxy in pixels of `orig_target_sizes` and
            scores [N, K] in [0, 1], best first.
        """
        output: FinalOutput = self.model(images)
        sizes_hw = torch.stack((orig_target_sizes[:, 1], orig_target_sizes[:, 0]), -1)
        found: Detections = self.postprocessor(output, sizes_hw)
        return found.labels, found.boxes_xyxy_px, found.scores


class GraphOptions(NamedTuple):
    """How a graph is written.

    Attributes:
        opset: ONNX operator set.
        batch: Pictures per call, None for any number.
        dynamic_size: Whether the graph takes pictures of any height and width that leave no query without a
            cell, rather than of the card's `input_hw` alone.
        simplify: Whether onnxslim looks for nodes to leave out.
        half: Whether it computes in float16 where that is safe.
    """

    opset: int = 18
    batch: int | None = None
    dynamic_size: bool = False
    simplify: bool = False
    half: bool = False


PLAIN = GraphOptions()


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: The file.
        opset: Its operator set.
        size_bytes: Its size.
        num_nodes: Nodes of its graph.
        operators: How often each operator occurs, the most frequent first.
        least_side: Least height and width of its pictures, None where it takes one size alone.
    """

    path: Path
    opset: int
    size_bytes: int
    num_nodes: int
    operators: dict[str, int]
    least_side: int | None


def export_onnx(deploy: DeployModel, path: Path, card: ModelCard, options: GraphOptions = PLAIN) -> Exported:
    """Write `deploy` as one ONNX file, whole or not at all.

    Args:
        deploy: A detector in eval mode, on the CPU.
        path: Where to; an older file there is replaced.
        card: What the file says of itself; its `input_hw` is the input size of the graph, or what pictures
            are resized to by default if the graph takes any. Its `least_side` is found here.
        options: How the graph is written.

    Raises:
        ValueError: An option is out of range, a package is missing, or the file cannot be written.
    """
    _check(options)
    assert not deploy.training, "a model is exported in eval mode"
    onnx = require("onnx")
    require("onnxscript")
    card = card._replace(least_side=_least_side(deploy, card.input_hw) if options.dynamic_size else None)
    proto = _trace(deploy, card, options)
    name_nodes(proto)
    if options.simplify:
        proto = _simplified(proto)
    _tidy(proto)
    if options.half:
        to_half(proto)
    onnx.helper.set_model_props(proto, to_properties(card))
    onnx.checker.check_model(proto, full_check=True)
    written = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != options.opset:
        raise ValueError(
            f"torch {torch.__version__} cannot write this model at opset {options.opset}; "
            f"use --opset {written}"
        )
    operators = dict(collections.Counter(node.op_type for node in proto.graph.node).most_common())
    if "GridSample" in operators:
        logger.warning("the graph holds GridSample nodes, which TensorRT is known to fuse wrongly")
    data = proto.SerializeToString()
    write_whole(path, data)
    return Exported(path, written, len(data), len(proto.graph.node), operators, card.least_side)


def _check(options: GraphOptions) -> None:
    """Refuse options that are out of range."""
    if options.opset not in OPSETS:
        raise ValueError(f"opset {options.opset} was asked for, allowed are {OPSETS[0]} to {OPSETS[-1]}")
    if options.batch is not None and options.batch < 1:
        raise ValueError(f"batch {options.batch} was asked for, allowed is 1 or more, or none for any number")


def _least_side(deploy: DeployModel, input_hw: tuple[int, int]) -> int:
    """The least height and width of a graph for many sizes: all give as many detections.

    Raises:
        ValueError: The input size is less.
    """
    least = cast(int, deploy.model.least_side)
    if min(input_hw) < least:
        raise ValueError(
            f"a graph of dynamic size takes pictures from {least}x{least} on, which have as many cells as "
            f"there are queries, but the input size is {input_hw[0]}x{input_hw[1]}; make it larger, take "
            "fewer queries or leave the size fixed"
        )
    return least


def _trace(deploy: DeployModel, card: ModelCard, options: GraphOptions) -> Any:
    """The ONNX ModelProto of `deploy`, its weights inside."""
    count = TRACED_BATCH if options.batch is None else options.batch
    height, width = card.input_hw
    sides = {}
    if card.least_side is not None:
        # Not alike and no multiples of anything, so that nothing is taken for a constant or left out.
        height, width = card.least_side + 41, card.least_side + 83
        sides = {2: torch.export.Dim("H", min=card.least_side), 3: torch.export.Dim("W", min=card.least_side)}
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, height, width, generator=generator)
    sizes_wh = torch.tensor([[width, height]]).repeat(count, 1)
    number = {0: torch.export.Dim("N")} if options.batch is None else {}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            make_lean(deploy),
            (images, sizes_wh),
            dynamo=True,
            opset_version=options.opset,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({**number, **sides}, number),
            custom_translation_table=translations(),
            external_data=False,
            verbose=False,
        )
        assert program is not None, "torch.onnx.export with dynamo=True gives a program"
        # torch's own run leaves tables and transposed weights to be made anew in every call.
        optimizer = require("onnxscript.optimizer")
        optimizer.optimize(program.model, input_size_limit=MAX_FOLDED, output_size_limit=MAX_FOLDED)
    return program.model_proto


def _simplified(proto: Any) -> Any:
    """What onnxslim makes of a ModelProto, if that is shorter."""
    before = len(proto.graph.node)
    simple = require("onnxslim").slim(proto, skip_fusion_patterns=[LENGTHENING])
    after = len(simple.graph.node)
    if after >= before:
        logger.info("onnxslim: %d nodes would become %d, the graph stays as it was", before, after)
        return proto
    logger.info("onnxslim: %d nodes became %d", before, after)
    return simple


def _tidy(proto: Any) -> None:
    """Drop what the exporter notes for its own debugging: it holds this machine's paths."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own workings from the user, but not its errors."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
