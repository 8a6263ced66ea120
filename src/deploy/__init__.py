"""Out of the lab: exported files that are checked, and predictors that run them."""

from .agreement import Agreement, Tolerance
from .detector import Detector
from .export import (
    DeployModel,
    Evidence,
    Exported,
    GraphOptions,
    export_onnx,
    export_verified,
    gather_evidence,
)
from .metadata import ModelCard
from .results import Result
from .runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, TorchRuntime
from .samples import Samples, samples_of
from .saving import Summary, save_results
from .scores import coco_numbers, origin_of
from .sources import find_pictures

__all__ = [
    "Agreement",
    "DeployModel",
    "Detector",
    "Evidence",
    "Exported",
    "GraphOptions",
    "ModelCard",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Result",
    "Runtime",
    "Samples",
    "Summary",
    "Tolerance",
    "TorchRuntime",
    "coco_numbers",
    "export_onnx",
    "export_verified",
    "find_pictures",
    "gather_evidence",
    "origin_of",
    "samples_of",
    "save_results",
]
