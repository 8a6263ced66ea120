"""What runs a detector, with one behaviour whatever it is: PyTorch or ONNX Runtime."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..structures import ClassNames, Detections
from .extras import require
from .metadata import INPUTS, OUTPUTS, from_properties


class Runtime(Protocol):
    """What a predictor needs of whatever runs the detector."""

    @property
    def classes(self) -> ClassNames:
        """The classes, by the index that `run` gives as label."""

    @property
    def input_hw(self) -> tuple[int, int]:
        """(height, width) that pictures are resized to."""

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """Detect.

        Args:
            images: [N, 3, H, W] float32 RGB in [0, 1], with (H, W) = `input_hw`, on the CPU.
            sizes_hw: [N, 2] int64, (height, width) of each picture as stored.

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
    ) -> None:
        assert not model.training, "a runtime takes a model in eval mode"
        self.classes = classes
        self.input_hw = input_hw
        self._device = torch.device(device)
        self._model = model.to(self._device)
        self._postprocessor = postprocessor.to(self._device)

    @torch.inference_mode()
    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """See `Runtime.run`."""
        _check(images, sizes_hw, self.input_hw)
        output = self._model(images.to(self._device))
        found: Detections = self._postprocessor(output, sizes_hw.to(self._device))
        return Detections(*(part.cpu() for part in found))


class OnnxRuntime:
    """A file that `export_onnx` wrote, run by ONNX Runtime on the CPU.

    A file of a fixed batch takes any number of pictures too: the last call is filled up with copies, whose
    detections are dropped.
    """

    def __init__(self, path: Path, *, num_threads: int = 0) -> None:
        """Open the file.

        Args:
            path: The ONNX file.
            num_threads: Threads for one call, 0 for as many as there are cores.

        Raises:
            ValueError: The file is missing, broken, or was not written by this project.
        """
        if not path.is_file():
            raise ValueError(f"{path}: no such file; export one with tools/deployment/export_onnx.py")
        self._session = _open(path, num_threads)
        inputs = {one.name: one.shape for one in self._session.get_inputs()}
        outputs = {one.name for one in self._session.get_outputs()}
        if set(inputs) != set(INPUTS) or outputs != set(OUTPUTS):
            raise ValueError(
                f"{path}: takes {sorted(inputs)} and gives {sorted(outputs)}, expected {sorted(INPUTS)} and "
                f"{sorted(OUTPUTS)}; export it with tools/deployment/export_onnx.py"
            )
        card = from_properties(self._session.get_modelmeta().custom_metadata_map, str(path))
        self.classes = card.classes
        self.input_hw = card.input_hw
        batch = inputs["images"][0]
        self.batch: int | None = batch if isinstance(batch, int) else None

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        """See `Runtime.run`."""
        _check(images, sizes_hw, self.input_hw)
        count = len(images)
        step = self.batch or count
        pieces = [
            self._run(images[start : start + step], sizes_hw[start : start + step], step)
            for start in range(0, count, step)
        ]
        labels, boxes, scores = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return Detections(labels, boxes, scores)

    def _run(self, images: Tensor, sizes_hw: Tensor, step: int) -> list[Tensor]:
        """Labels, boxes and scores of at most `step` pictures, by one call with exactly `step`."""
        count = len(images)
        rows = torch.arange(step).clamp(max=count - 1)
        feed = {
            "images": np.ascontiguousarray(images[rows].numpy()),
            "orig_target_sizes": np.ascontiguousarray(sizes_hw[rows].flip(-1).numpy()),
        }
        return [torch.from_numpy(part)[:count] for part in self._session.run(list(OUTPUTS), feed)]


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
    except (faults.Fail, faults.InvalidProtobuf, faults.InvalidGraph, faults.InvalidArgument) as error:
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
