"""Out of the lab: exported files that are checked, and predictors that run them."""

from .export import DeployModel, Exported, export_onnx
from .metadata import ModelCard
from .predictor import Prediction, Predictor, find_pictures
from .results import Summary, predict_folder
from .runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, TorchRuntime
from .verify import Agreement, export_verified, verify_onnx

__all__ = [
    "Agreement",
    "DeployModel",
    "Exported",
    "ModelCard",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "Prediction",
    "Predictor",
    "Runtime",
    "Summary",
    "TorchRuntime",
    "export_onnx",
    "export_verified",
    "find_pictures",
    "predict_folder",
    "verify_onnx",
]
