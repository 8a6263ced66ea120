"""Out of the lab: exported files that are checked, and predictors that run them."""

from .detector import Detector
from .export import DeployModel, Exported, GraphOptions, export_onnx
from .metadata import ModelCard
from .results import Result
from .runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, TorchRuntime
from .saving import Summary, save_results
from .sources import find_pictures
from .verify import Agreement, export_verified, verify_onnx

__all__ = [
    "Agreement",
    "DeployModel",
    "Detector",
    "Exported",
    "GraphOptions",
    "ModelCard",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Result",
    "Runtime",
    "Summary",
    "TorchRuntime",
    "export_onnx",
    "export_verified",
    "find_pictures",
    "save_results",
    "verify_onnx",
]
