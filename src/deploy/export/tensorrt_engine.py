"""A TensorRT engine from an exported file, by TensorRT's own builder `trtexec`. Nobody has run it here."""

import collections
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...files import make_folder, replacing
from ..extras import require
from ..metadata import INPUTS, from_properties

TRTEXEC = "trtexec"


class Graph(NamedTuple):
    """What of an exported graph decides how an engine is built.

    Attributes:
        batch: Pictures per call, None for any number.
        input_hw: (height, width) of its input, or where it takes any, the one that it was made for.
        is_fixed: Whether no side of its inputs is left open.
        grid_samples: How many GridSample nodes it has.
        numbers: How many numbers its weights have of each type; the engine computes in these types.
    """

    batch: int | None
    input_hw: tuple[int, int]
    is_fixed: bool
    grid_samples: int
    numbers: dict[str, int]


def read_graph(path: Path) -> Graph:
    """What `path` holds.

    Raises:
        ValueError: There is no such file, or it is none that `export_onnx` wrote.
    """
    onnx = require("onnx")
    faults = require("google.protobuf.message")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (faults.DecodeError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as ONNX ({error}); export it again") from error
    card = from_properties({one.key: one.value for one in model.metadata_props}, str(path))
    images = next(one for one in model.graph.input if one.name == INPUTS[0])
    shape = images.type.tensor_type.shape.dim
    sides = [side.dim_value if side.HasField("dim_value") else None for side in shape]
    numbers: collections.Counter[str] = collections.Counter()
    for tensor in model.graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        if "float" in kind or kind in ("int8", "uint8"):  # others are indices and shapes
            numbers[kind] += math.prod(tensor.dims)
    return Graph(
        batch=sides[0],
        input_hw=card.input_hw,
        is_fixed=None not in sides,
        grid_samples=sum(node.op_type == "GridSample" for node in _nodes(model.graph)),
        numbers=dict(numbers.most_common()),
    )


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of loops and branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def trtexec_command(
    path: Path,
    graph: Graph,
    output: Path,
    *,
    batches: tuple[int, int, int] | None = None,
    timing_cache: Path | None = None,
    allow_grid_sample: bool = False,
    trtexec: str = TRTEXEC,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command that builds the engine; it is not run.

    Args:
        path: The ONNX file.
        graph: What it holds; the engine computes in its types.
        output: The engine.
        batches: Least, usual and largest number of pictures per call; 1, 1 and 8 where the graph takes any.
        timing_cache: File in which TensorRT keeps what it measured, for the next build.
        allow_grid_sample: Whether a graph with GridSample nodes is taken.
        trtexec: The builder's name, or its path.
        extra: Further arguments for it.

    Raises:
        ValueError: The graph has GridSample nodes, or does not take such batches.
    """
    if graph.grid_samples and not allow_grid_sample:
        raise ValueError(
            f"{path}: has {graph.grid_samples} GridSample nodes, which TensorRT is known to fuse wrongly "
            "(NVIDIA/TensorRT #4813); export it with --sampling gather, or give --allow-grid-sample"
        )
    command = [trtexec, f"--onnx={path}", f"--saveEngine={output}", "--stronglyTyped", "--skipInference"]
    if graph.batch is None:
        least, usual, largest = batches or (1, 1, 8)
    elif batches in (None, (graph.batch,) * 3):
        least = usual = largest = graph.batch
    else:
        raise ValueError(f"{path}: takes {graph.batch} pictures per call, no other number; leave --batch out")
    if not 1 <= least <= usual <= largest:
        raise ValueError(
            f"batches of {least}, {usual} and {largest} pictures were asked for; they are the least, the "
            "usual and the largest number, in this order, from 1 on"
        )
    if not graph.is_fixed:  # trtexec refuses shapes for a graph that leaves none open
        shapes = (("min", least), ("opt", usual), ("max", largest))
        command += [f"--{name}Shapes={_shapes(count, graph.input_hw)}" for name, count in shapes]
    if timing_cache is not None:
        command.append(f"--timingCacheFile={timing_cache}")
    return [*command, *extra]


def _shapes(batch: int, input_hw: tuple[int, int]) -> str:
    height, width = input_hw
    return f"{INPUTS[0]}:{batch}x3x{height}x{width},{INPUTS[1]}:{batch}x2"


def build_engine(command: Sequence[str], output: Path) -> None:
    """Run a command of `trtexec_command`; the engine is there whole or not at all.

    Raises:
        ValueError: The builder is not installed, or fails; it says why by itself.
    """
    if shutil.which(command[0]) is None:
        raise ValueError(
            f"{command[0]}: not found. It is TensorRT's builder, in NVIDIA's archives and containers of it; "
            "install 10.6 or newer, or name the program with --trtexec"
        )
    make_folder(output.parent)
    named = f"--saveEngine={output}"
    with replacing(output) as partial:
        told = [f"--saveEngine={partial}" if argument == named else argument for argument in command]
        status = subprocess.run(told, check=False).returncode
        if status or not partial.is_file():
            raise ValueError(
                f"{command[0]} ended with status {status} and without an engine; see its messages"
            )
