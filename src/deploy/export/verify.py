"""Whether an exported file finds what PyTorch finds, found out by running it."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...data import Origin
from ...evaluation import CocoMetrics
from ...files import staged_folder
from ..agreement import FLOAT32, HALF, Agreement, Tolerance, compare
from ..metadata import ModelCard
from ..runtimes import OnnxRuntime, Runtime, TorchRuntime
from ..samples import Samples, made_up
from ..scores import coco_numbers, count_pictures
from ..table import table
from .onnx_graph import PLAIN, DeployModel, Exported, GraphOptions, export_onnx
from .report import read_report, stage_report

PYTORCH = "PyTorch"


class Scores(NamedTuple):
    """COCO's numbers of two forms of a detector.

    Attributes:
        origin: The pictures and their objects.
        num_pictures: How many they are.
        rows: Numbers by what ran the detector, the reference first.
    """

    origin: Origin
    num_pictures: int
    rows: dict[str, CocoMetrics]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes."""
        return {
            "img_folder": str(self.origin.img_folder),
            "ann_file": str(self.origin.ann_file),
            "num_pictures": self.num_pictures,
            **{name: metrics.numbers() for name, metrics in self.rows.items()},
        }

    def table(self) -> str:
        """The 12 numbers in percent, a row for each form."""
        head = [f"{self.num_pictures} pictures", *next(iter(self.rows.values())).numbers()]
        rows = [
            [name, *("-" if value < 0 else f"{100 * value:.2f}" for value in metrics.numbers().values())]
            for name, metrics in self.rows.items()
        ]
        return "\n".join(table([head, *rows]))


class Evidence(NamedTuple):
    """What shows that two forms of a detector are the same.

    Attributes:
        pictures: What they were compared on, in words.
        tolerance: How far they may be apart.
        agreement: How far they are, in detections.
        scores: In COCO's numbers, where a dataset was named.
        reference: What ran the form that the other is compared with.
    """

    pictures: str
    tolerance: Tolerance
    agreement: Agreement
    scores: Scores | None
    reference: str = PYTORCH

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes."""
        return {
            "reference": self.reference,
            "pictures": self.pictures,
            "tolerance": self.tolerance._asdict(),
            "agreement": self.agreement._asdict(),
            "scores": None if self.scores is None else self.scores.to_dict(),
        }

    def text(self) -> str:
        """For a person: a line, and the table of COCO's numbers."""
        found, reference = self.agreement, self.reference
        line = (
            f"agrees with {reference} ({found.batch} pictures, {found.num_compared} detections): scores "
            f"within {found.max_score_diff:.2g}, boxes within {found.max_box_diff_px:.2g} px, on "
            f"{self.pictures}"
        )
        if not found.num_compared:
            line = f"runs, but was not compared with {reference}: no score on {self.pictures} reaches "
            line += f"{self.tolerance.floor:g}"
        if found.num_apart:
            line += f"; {found.num_apart} more found no such counterpart"
        return line if self.scores is None else f"{line}\n\n{self.scores.table()}"


def gather_evidence(
    name: str,
    other: Runtime,
    reference: Runtime,
    samples: Samples,
    data: Origin | None = None,
    tolerance: Tolerance = FLOAT32,
    reference_name: str = PYTORCH,
) -> Evidence:
    """Compare what a file finds with what it was made from finds, in PyTorch as a rule.

    Args:
        name: What runs the file.
        other: The file.
        reference: The detector that it was made from, not fused: so that fusing is checked too.
        samples: Pictures to compare detections on.
        data: Pictures with objects, to compare COCO's numbers on.
        tolerance: How far they may be apart.
        reference_name: What runs the reference.

    Raises:
        ValueError: They differ by more, and the message says by how much; or the dataset is faulty.
    """
    expected = reference.run(samples.images, samples.sizes_hw)
    try:
        agreement = compare(expected, other.run(samples.images, samples.sizes_hw), tolerance)
    except ValueError as error:
        raise ValueError(f"{name} and {reference_name} do not agree on {samples.source}: {error}") from error
    if data is None:
        return Evidence(samples.source, tolerance, agreement, None, reference_name)
    rows = {reference_name: coco_numbers(reference, data), name: coco_numbers(other, data)}
    check_ap(name, rows[name].AP, reference_name, rows[reference_name].AP, data, tolerance)
    scores = Scores(data, count_pictures(data), rows)
    return Evidence(samples.source, tolerance, agreement, scores, reference_name)


def check_ap(
    name: str, ap: float, reference_name: str, expected: float, data: Origin, tolerance: Tolerance
) -> None:
    """Refuse an AP that differs from that of the reference by more than is allowed.

    Raises:
        ValueError: It does.
    """
    if abs(ap - expected) > tolerance.ap:
        raise ValueError(
            f"{name} and {reference_name} do not agree: AP {ap:.4f} and {expected:.4f} on {data.ann_file} "
            f"(allowed is a difference of {tolerance.ap:g})"
        )


def _at_other_sizes(
    path: Path, reference: DeployModel, least: int, tolerance: Tolerance
) -> dict[str, Agreement]:
    """How far it is from PyTorch at two more sizes that such a graph takes, neither a multiple of 32."""
    found = {}
    for size_hw in ((least, least + 1), (2 * least + 7, least + 45)):
        runtime, size = OnnxRuntime(path, input_hw=size_hw), "{}x{}".format(*size_hw)
        name, torch_runtime = f"ONNX Runtime at {size}", _in_torch(reference, runtime)
        evidence = gather_evidence(name, runtime, torch_runtime, made_up(size_hw), None, tolerance)
        found[size] = evidence.agreement
    return found


def _in_torch(model: DeployModel, like: OnnxRuntime) -> TorchRuntime:
    return TorchRuntime(
        model.model, model.postprocessor, like.classes, like.input_hw, keep_ratio=like.keep_ratio
    )


def export_verified(
    deploy: DeployModel,
    reference: DeployModel,
    path: Path,
    card: ModelCard,
    options: GraphOptions = PLAIN,
    *,
    samples: Samples | None = None,
    data: Origin | None = None,
    check: bool = True,
) -> tuple[Exported, Evidence | None]:
    """Export, verify, and only then put the file in its place, and an entry for it into `export.json`.

    Args:
        deploy: What is exported.
        reference: The same detector, not fused.
        path: The ONNX file.
        card: What the file says of itself.
        options: How the graph is written.
        samples: Pictures to compare detections on; None makes some up.
        data: Pictures with objects, to compare COCO's numbers on.
        check: Whether to verify; without it the report says that nobody did.

    Returns:
        What was written, and how far it is from PyTorch if that was checked.

    Raises:
        ValueError: An option is out of range, a package is missing, a file cannot be written, an
            `export.json` of another origin is there, or PyTorch and ONNX Runtime do not agree.
    """
    if data is not None and not check:
        raise ValueError("data was named to compare the AP on, but no check was asked for; leave out one")
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: the exported file must end in .onnx")
    read_report(path.parent)  # a faulty one is told before any work
    started = time.perf_counter()
    with staged_folder(path.parent) as folder:
        exported = export_onnx(deploy, folder / path.name, card, options)
        evidence, others = None, {}
        if check:
            runtime = OnnxRuntime(exported.path)
            samples = samples or made_up(card.input_hw)
            tolerance = HALF if options.half else FLOAT32
            torch_runtime = _in_torch(reference, runtime)
            evidence = gather_evidence("ONNX Runtime", runtime, torch_runtime, samples, data, tolerance)
            if exported.least_side is not None:
                others = _at_other_sizes(exported.path, reference, exported.least_side, tolerance)
        entry = {
            **_describe(exported, card, options),
            "seconds": round(time.perf_counter() - started, 1),
            "verified": None if evidence is None else evidence.to_dict(),
            "other_sizes_hw": {size: agreement._asdict() for size, agreement in others.items()},
        }
        stage_report(folder, path.parent, path.name, entry)
    return exported._replace(path=path), evidence


def _describe(exported: Exported, card: ModelCard, options: GraphOptions) -> dict[str, Any]:
    """What the report says of the file itself."""
    return {
        "config": card.config,
        "input_size_hw": card.input_hw,
        "least_side": exported.least_side,
        "batch": options.batch or "any",
        "opset": exported.opset,
        "size_bytes": exported.size_bytes,
        "num_nodes": exported.num_nodes,
        "operators": exported.operators,
        "torch": torch.__version__,
    }
