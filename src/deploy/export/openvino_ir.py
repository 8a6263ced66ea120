"""OpenVINO's own files (`.xml` and `.bin`) of an exported detector, which open faster and need no ONNX."""

from pathlib import Path
from typing import Any, NamedTuple

from ...data import Origin
from ...files import staged_folder
from ..agreement import FLOAT32, HALF, Tolerance
from ..extras import require
from ..runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, openvino_core
from ..samples import first_of, made_up, try_out
from .verify import PYTORCH, Evidence, gather_evidence


class Saved(NamedTuple):
    """What was written.

    Attributes:
        path: The `.xml`; the `.bin` with the weights lies beside it.
        size_bytes: Of both.
        evidence: How far it is from what it was compared with; None of a file in 8 bits, which was only run.
    """

    path: Path
    size_bytes: int
    evidence: Evidence | None


def save_openvino(
    source: Path,
    path: Path,
    *,
    half: bool = False,
    pictures: Origin | None = None,
    reference: Runtime | None = None,
) -> Saved:
    """Write both files, or none, once they have been run and compared.

    Args:
        source: What `export_onnx` or `quantize` wrote.
        path: The `.xml`; it keeps all that the source says of itself.
        half: Keep weights in float16: half the size; OpenVINO computes as before.
        pictures: A dataset, to compare detections on its first pictures; None makes some up.
        reference: The detector in PyTorch as it was trained, to compare with; None takes the source in ONNX
            Runtime.

    Raises:
        ValueError: A file is missing or broken, `path` ends otherwise, a package is missing, the reference is
            of another kind than the source, or what was written does not find what the reference finds.
    """
    if path.suffix != ".xml":
        raise ValueError(f"{path.name}: OpenVINO's file must end in .xml; its weights become {path.stem}.bin")
    openvino = require("openvino")
    original = OnnxRuntime(source)  # says what is wrong with the source
    if reference is not None and _kind(reference) != _kind(original):
        raise ValueError(
            f"{source.name}: is of other classes, or takes pictures of another size or shape, than the "
            "checkpoint; name the one that it was exported from, or export it again without -u"
        )
    if pictures is None:
        samples = made_up(original.input_hw)
    else:
        samples = first_of(pictures, original.input_hw, keep_ratio=original.keep_ratio)
    with staged_folder(path.parent) as folder:
        staged = folder / path.name
        model = openvino_core().read_model(str(source))
        openvino.save_model(model, str(staged), compress_to_fp16=half)
        tolerance, runtime = _tolerance(model, half), OpenVinoRuntime(staged)
        if tolerance is None:
            try_out(runtime, path.name, samples)
            evidence = None
        else:
            name, other = f"{path.name}: OpenVINO", "ONNX Runtime" if reference is None else PYTORCH
            expected = reference or original
            evidence = gather_evidence(name, runtime, expected, samples, None, tolerance, other)
        size = sum(one.stat().st_size for one in folder.iterdir())
    return Saved(path, size, evidence)


def _kind(runtime: Runtime) -> tuple[object, ...]:
    """What two forms of one detector have in common."""
    return runtime.classes, tuple(runtime.input_hw), runtime.keep_ratio


def _tolerance(model: Any, half: bool) -> Tolerance | None:
    """How far OpenVINO's model may be from what it was made from; None for 8 bits, which have a price."""
    operations = model.get_ops()
    if any(one.get_type_name() == "FakeQuantize" for one in operations):
        return None
    constants = (one for one in operations if one.get_type_name() == "Constant")
    is_half = half or any(one.get_element_type().get_type_name() == "f16" for one in constants)
    return HALF if is_half else FLOAT32
