"""Whether an exported file finds what PyTorch finds, for the tests of those who export."""

from pathlib import Path

from src.deploy.agreement import Agreement
from src.deploy.export.onnx_graph import DeployModel
from src.deploy.export.verify import gather_evidence
from src.deploy.runtimes import OnnxRuntime, TorchRuntime
from src.deploy.samples import NUM_MADE_UP, made_up


def verify_onnx(path: Path, reference: DeployModel, *, batch: int = NUM_MADE_UP) -> Agreement:
    """Run the file in ONNX Runtime on made-up pictures and compare with PyTorch.

    Args:
        path: What `export_onnx` wrote.
        reference: The detector that it was made from, not fused.
        batch: Pictures; for a file with dynamic batch any number but the export's own.

    Raises:
        ValueError: They differ; the message says by how much.
    """
    runtime = OnnxRuntime(path)
    expected = TorchRuntime(reference.model, reference.postprocessor, runtime.classes, runtime.input_hw)
    samples = made_up(runtime.input_hw, batch)
    return gather_evidence(path.name, runtime, expected, samples).agreement
