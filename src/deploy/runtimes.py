"""What runs a detector, with one behaviour whatever it is: PyTorch, ONNX Runtime or OpenVINO.

A file of a fixed batch takes any number of pictures too, in pieces.
"""

import logging
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..structures import ClassNames, Detections
from .extras import require
from .metadata import INPUTS, OUTPUTS, chosen_size, from_properties

logger = logging.getLogger(__name__)

Feed = dict[str, NDArray[Any]]


class Runtime(Protocol):
    """What a predictor needs of whatever runs the detector."""

    @property
    def classes(self) -> ClassNames:
        """The classes, by the index that `run` gives as label."""

    @property
    def input_hw(self) -> tuple[int, int]:
        """(height, width) that pictures are resized to."""

    @property
    def keep_ratio(self) -> bool:
        """Whether pictures are padded to that shape before, rather than stretched."""

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """Detect.

        Args:
            images: [N, 3, H, W] float32 RGB in [0, 1], with (H, W) = `input_hw`, on the CPU.
            sizes_hw: [N, 2] int64, (height, width) of each picture as stored, with its padding if it has any.

        Returns:
            The detections, on the CPU.
        """


class TorchRuntime:
    """A model in PyTorch, with its weights loaded and in eval mode."""

    def __init__(
        self,
        model: nn.Module,
        postprocessor: nn.Module,
        classes: ClassNames,
        input_hw: tuple[int, int],
        device: torch.device | str = "cpu",
        *,
        keep_ratio: bool = False,
        compiled: bool = False,
    ) -> None:
        """Move the model to its device.

        Args:
            model: Pictures [N, 3, H, W] to a `FinalOutput`.
            postprocessor: What turns that into detections.
            classes: The classes, by label.
            input_hw: (height, width) that pictures are resized to.
            device: Where it runs.
            keep_ratio: Whether pictures are padded to that shape before.
            compiled: Compile the model with `torch.compile`, with CUDA graphs on a GPU. The first call with
                each number of pictures waits for it.
        """
        assert not model.training, "a runtime takes a model in eval mode"
        self.classes = classes
        self.input_hw = input_hw
        self.keep_ratio = keep_ratio
        self._device = torch.device(device)
        self._model: Callable[[Tensor], Any] = model.to(self._device)
        if compiled:
            self._model = torch.compile(self._model, mode="reduce-overhead", fullgraph=True)
        self._postprocessor = postprocessor.to(self._device)

    @torch.inference_mode()
    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """See `Runtime.run`."""
        _check(images, sizes_hw, self.input_hw)
        output = self._model(images.to(self._device))
        found: Detections = self._postprocessor(output, sizes_hw.to(self._device))
        return Detections(*(part.cpu() for part in found))


class OnnxRuntime:
    """A file that `export_onnx` wrote, run by ONNX Runtime on the CPU."""

    def __init__(self, path: Path, *, num_threads: int = 0, input_hw: tuple[int, int] | None = None) -> None:
        """Open the file.

        Args:
            path: The ONNX file.
            num_threads: Threads for one call, 0 for as many as there are cores.
            input_hw: (height, width) that pictures are resized to, None for the file's own.

        Raises:
            ValueError: The file is missing, broken, was not written by this project, or does not take that
                size.
        """
        _check_file(path)
        self._session = _open(path, num_threads)
        shapes = {one.name: tuple(one.shape) for one in self._session.get_inputs()}
        _check_interface(path, set(shapes), {one.name for one in self._session.get_outputs()})
        card = from_properties(self._session.get_modelmeta().custom_metadata_map, str(path))
        self.classes = card.classes
        self.input_hw = chosen_size(card, input_hw, str(path))
        self.keep_ratio = card.keep_ratio
        batch, _, *sides = shapes["images"]
        if any(isinstance(side, int) and side != own for side, own in zip(sides, self.input_hw, strict=True)):
            raise ValueError(
                f"{path}: its metadata says {self.input_hw}, its graph takes {tuple(sides)}; export it again"
            )
        self.batch: int | None = batch if isinstance(batch, int) else None

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """See `Runtime.run`."""
        _check(images, sizes_hw, self.input_hw)
        return _run_in_steps(self._call, images, sizes_hw, self.batch)

    def _call(self, feed: Feed) -> list[NDArray[Any]]:
        return self._session.run(list(OUTPUTS), feed)  # type: ignore[no-any-return]


@cache
def openvino_core() -> Any:
    """OpenVINO's `Core`, one for the process and to its end.

    Each has a CPU plugin of its own, which lays a stack for signals over the one it found and puts that back
    when it goes. Of two that go in the order they came, the second puts back what the first has unmapped, and
    the next signal that Python handles (Ctrl-C, the end of a child) ends the process (OpenVINO 2026.4).
    """
    return require("openvino").Core()


class OpenVinoRuntime:
    """A file that `export_onnx` wrote, or the IR made from it, run by OpenVINO on the CPU.

    Any thread may call `run`; one call waits for the other.

    Attributes:
        precision: What it calculates in, by OpenVINO's name: f32, or bf16 where that was asked for and the
            processor has instructions for it.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_threads: int = 0,
        bfloat16: bool = False,
        input_hw: tuple[int, int] | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: The ONNX or `.xml` file; one of a fixed batch is faster.
            num_threads: Threads for one call, 0 for as many as there are cores.
            bfloat16: Calculate in bfloat16: faster, and less exact. A processor without instructions for it
                calculates in float32, which the log says.
            input_hw: (height, width) that pictures are resized to, None for the file's own.

        Raises:
            ValueError: The file is missing, broken, was not written by this project, or does not take that
                size.
        """
        _check_file(path)
        core = openvino_core()
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        }
        if num_threads:
            settings["INFERENCE_NUM_THREADS"] = num_threads
        try:
            model = core.read_model(str(path))
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: OpenVINO cannot read this file: {reason}") from error
        self._request = compiled.create_infer_request()
        self.precision: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if bfloat16 and self.precision != "bf16":
            logger.warning("%s: on this processor OpenVINO calculates in %s, not bf16", path, self.precision)
        inputs = {one.get_any_name(): one.get_partial_shape() for one in model.inputs}
        _check_interface(path, set(inputs), {one.get_any_name() for one in model.outputs})
        stored = model.get_rt_info()["framework"] if model.has_rt_info(["framework"]) else {}
        card = from_properties({key: str(value.value) for key, value in stored.items()}, str(path))
        self.classes = card.classes
        self.input_hw = chosen_size(card, input_hw, str(path))
        self.keep_ratio = card.keep_ratio
        batch = inputs["images"][0]
        self._lock = threading.Lock()
        self.batch: int | None = batch.get_length() if batch.is_static else None

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """See `Runtime.run`."""
        _check(images, sizes_hw, self.input_hw)
        return _run_in_steps(self._call, images, sizes_hw, self.batch)

    def _call(self, feed: Feed) -> list[NDArray[Any]]:
        with self._lock:
            found = self._request.infer(feed)
            return [np.array(found[name]) for name in OUTPUTS]  # copies: the next call writes over them


def _check_file(path: Path) -> None:
    """Refuse a path at which there is no file."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; export one with tools/deployment/export_onnx.py")


def _check_interface(path: Path, inputs: set[str], outputs: set[str]) -> None:
    """Refuse a graph that takes or gives other things than `export_onnx` writes."""
    if inputs != set(INPUTS) or outputs != set(OUTPUTS):
        raise ValueError(
            f"{path}: takes {sorted(inputs)} and gives {sorted(outputs)}, expected {sorted(INPUTS)} and "
            f"{sorted(OUTPUTS)}; export it with tools/deployment/export_onnx.py"
        )


def _run_in_steps(
    call: Callable[[Feed], list[NDArray[Any]]], images: Tensor, sizes_hw: Tensor, batch: int | None
) -> Detections:
    """Give a graph its inputs, in pieces of exactly `batch` pictures where it takes no other number.

    The last piece is filled up with copies, whose detections are dropped.
    """
    step = batch or len(images)
    pieces = []
    for start in range(0, len(images), step):
        part, sizes = images[start : start + step], sizes_hw[start : start + step]
        count = len(part)
        if count < step:
            rows = torch.arange(step).clamp(max=count - 1)
            part, sizes = part[rows], sizes[rows]
        feed = {
            "images": np.ascontiguousarray(part.numpy()),
            "orig_target_sizes": np.ascontiguousarray(sizes.flip(-1).numpy()),
        }
        pieces.append([torch.from_numpy(found)[:count] for found in call(feed)])
    labels, boxes, scores = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Detections(labels, boxes, scores)


def _open(path: Path, num_threads: int) -> Any:
    """An ONNX Runtime session of a file.

    Raises:
        ValueError: ONNX Runtime cannot read it.
    """
    onnxruntime = require("onnxruntime")
    faults = require("onnxruntime.capi.onnxruntime_pybind11_state")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (
        faults.Fail, faults.InvalidProtobuf, faults.InvalidGraph, faults.InvalidArgument, faults.NoSuchFile,
        faults.NotImplemented, faults.RuntimeException,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: ONNX Runtime cannot read this file: {reason}") from error


def _check(images: Tensor, sizes_hw: Tensor, input_hw: tuple[int, int]) -> None:
    """Refuse a batch that is not what `Runtime.run` takes."""
    count = len(images)
    if count < 1 or images.shape[1:] != (3, *input_hw) or images.dtype != torch.float32:
        raise ValueError(
            f"images of shape {tuple(images.shape)} and type {images.dtype} came, expected "
            f"[N >= 1, 3, {input_hw[0]}, {input_hw[1]}] of torch.float32"
        )
    if sizes_hw.shape != (count, 2) or sizes_hw.dtype != torch.int64:
        raise ValueError(
            f"sizes_hw of shape {tuple(sizes_hw.shape)} and type {sizes_hw.dtype} came, expected "
            f"[{count}, 2] of torch.int64"
        )
