"""Files for other runtimes: the graph, its forms in fewer bits, and the evidence that it finds the same."""

from .onnx_graph import DeployModel, Exported, GraphOptions, export_onnx
from .verify import Evidence, export_verified, gather_evidence

__all__ = [
    "DeployModel",
    "Evidence",
    "Exported",
    "GraphOptions",
    "export_onnx",
    "export_verified",
    "gather_evidence",
]
