"""OpenVINO's own files (`.xml` and `.bin`) of an exported detector, which open faster and need no ONNX."""

from pathlib import Path
from typing import Any, NamedTuple

from ...files import staged_folder
from ..agreement import FLOAT32, Agreement, compare
from ..extras import require
from ..runtimes import OnnxRuntime, OpenVinoRuntime, openvino_core
from ..samples import try_out


class Saved(NamedTuple):
    """What was written.

    Attributes:
        path: The `.xml`; the `.bin` with the weights lies beside it.
        size_bytes: Of both.
        agreement: With the source in ONNX Runtime; None where numbers are rounded, in 16 or 8 bits.
    """

    path: Path
    size_bytes: int
    agreement: Agreement | None


def save_openvino(source: Path, path: Path, *, half: bool = False) -> Saved:
    """Write both files, or none, once they have been run.

    Args:
        source: What `export_onnx` or `quantize` wrote.
        path: The `.xml`; it keeps all that the source says of itself.
        half: Keep weights in float16: half the size; OpenVINO computes as before.

    Raises:
        ValueError: A file is missing or broken, `path` ends otherwise, a package is missing, or what was
            written does not find what the source finds in ONNX Runtime.
    """
    if path.suffix != ".xml":
        raise ValueError(f"{path.name}: OpenVINO's file must end in .xml; its weights become {path.stem}.bin")
    openvino = require("openvino")
    reference = OnnxRuntime(source)  # says what is wrong with the source
    with staged_folder(path.parent) as folder:
        staged = folder / path.name
        model = openvino_core().read_model(str(source))
        openvino.save_model(model, str(staged), compress_to_fp16=half)
        rounded = half or any(_rounds(one) for one in model.get_ops())
        agreement = _check(staged, reference, rounded)
        size = sum(one.stat().st_size for one in folder.iterdir())
    return Saved(path, size, agreement)


def _rounds(operation: Any) -> bool:
    """Whether an operation of OpenVINO's gives numbers in 8 bits, or is a constant in 16."""
    kind: str = operation.get_type_name()
    if kind != "Constant":
        return kind == "FakeQuantize"
    number: str = operation.get_element_type().get_type_name()
    return number == "f16"


def _check(path: Path, reference: OnnxRuntime, rounded: bool) -> Agreement | None:
    """Run the written file.

    Raises:
        ValueError: It cannot be run, gives values that are not finite, or in float32 finds something else.
    """
    samples, found = try_out(OpenVinoRuntime(path), path.name)
    if rounded:
        return None
    try:
        return compare(reference.run(samples.images, samples.sizes_hw), found, FLOAT32)
    except ValueError as error:
        raise ValueError(f"{path.name}: OpenVINO and ONNX Runtime do not agree: {error}") from error
