"""Whether an exported file gives what PyTorch gives, found out by running it.

Legend: N pictures, K detections of a picture.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..files import staged_folder
from ..structures import Detections
from .export import PLAIN, DeployModel, Exported, GraphOptions, export_onnx
from .metadata import ModelCard
from .runtimes import OnnxRuntime

SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE_PX = 0.05  # in a picture whose long side has PICTURE_SIDE pixels
PICTURE_SIDE = 640
MAX_TIES = 0.1
REPORT_FILE = "export.json"


class Agreement(NamedTuple):
    """How far two sets of detections of the same pictures are apart.

    Attributes:
        batch: Pictures compared.
        num_compared: Pairs of detections within tolerance.
        num_ties: Pairs that are not, but whose scores lie within tolerance of the lowest score kept: which of
            such detections are kept is an accident of rounding.
        max_score_diff: Largest difference of scores over the compared pairs.
        max_box_diff_px: Largest difference of a box side over the compared pairs, in pixels.
    """

    batch: int
    num_compared: int
    num_ties: int
    max_score_diff: float
    max_box_diff_px: float


def compare(
    reference: Detections,
    other: Detections,
    *,
    score_tolerance: float = SCORE_TOLERANCE,
    box_tolerance_px: float = BOX_TOLERANCE_PX,
) -> Agreement:
    """Compare detections as sets: rounding may swap the order of near equal scores.

    Raises:
        ValueError: They differ by more than the tolerances, or hold values that are not finite.
    """
    if reference.scores.shape != other.scores.shape:
        raise ValueError(
            f"{tuple(other.scores.shape)} scores came, {tuple(reference.scores.shape)} were expected"
        )
    scores_off: list[NDArray[np.float64]] = []
    boxes_off: list[NDArray[np.float64]] = []
    num_ties = 0
    for index in range(len(reference.scores)):
        score_diff, box_diff, within, is_tie = _pair(
            _numpy(reference, index), _numpy(other, index), score_tolerance, box_tolerance_px
        )
        wrong = ~within & ~is_tie
        if wrong.any():
            raise ValueError(
                f"picture {index}: {int(wrong.sum())} of {len(wrong)} detections differ, by up to "
                f"{score_diff[wrong].max():.3g} in score (allowed {score_tolerance:g}) and "
                f"{box_diff[wrong].max():.3g} px (allowed {box_tolerance_px:g}), or in their labels"
            )
        num_ties += int((~within).sum())
        scores_off.append(score_diff[within])
        boxes_off.append(box_diff[within])
    score_all, box_all = np.concatenate(scores_off), np.concatenate(boxes_off)
    if num_ties > MAX_TIES * reference.scores.numel():
        raise ValueError(
            f"{num_ties} of {reference.scores.numel()} detections are ties at the lowest score kept, too "
            "many to compare the rest; compare with trained weights"
        )
    return Agreement(
        len(reference.scores), len(score_all), num_ties, float(score_all.max()), float(box_all.max())
    )


_Rows = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _numpy(detections: Detections, index: int) -> _Rows:
    """Labels [K], boxes [K, 4] and scores [K] of one picture."""
    rows = [part[index].double().cpu().numpy() for part in (detections.boxes_xyxy_px, detections.scores)]
    if not all(np.isfinite(part).all() for part in rows):
        raise ValueError(f"picture {index}: a score or a box is not a finite number")
    return detections.labels[index].cpu().numpy(), rows[0], rows[1]


def _pair(
    reference: _Rows, other: _Rows, score_tolerance: float, box_tolerance_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Pair the detections of one picture: score and box difference [K], within tolerance, tied."""
    score_diff = np.abs(reference[2][:, None] - other[2][None])
    box_diff = np.abs(reference[1][:, None] - other[1][None]).max(-1)
    excess = np.maximum(score_diff / score_tolerance, box_diff / box_tolerance_px)
    excess = np.where(reference[0][:, None] == other[0][None], excess, np.inf)
    # Any pair within tolerance is worth more than all that are not: 2 K > the sum of what K good pairs cost.
    cost = np.where(excess <= 1, excess, 2.0 * len(excess))
    rows, columns = linear_sum_assignment(cost)
    lowest = max(reference[2].min(), other[2].min()) + score_tolerance
    is_tie = (reference[2][rows] <= lowest) & (other[2][columns] <= lowest)
    return score_diff[rows, columns], box_diff[rows, columns], excess[rows, columns] <= 1, is_tie


def pictures(count: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Made-up pictures [count, 3, H, W] in [0, 1]: soft blobs, hard edges and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size_hw
    soft = torch.nn.functional.interpolate(
        torch.rand(count, 3, 6, 6, generator=generator), size_hw, mode="bicubic", align_corners=False
    )
    hard = torch.nn.functional.interpolate(
        torch.rand(count, 3, 9, 9, generator=generator), size_hw, mode="nearest"
    )
    noise = torch.rand(count, 3, height, width, generator=generator)
    return (0.55 * soft + 0.4 * hard + 0.05 * noise).clamp(0, 1)


@torch.inference_mode()
def verify_onnx(path: Path, reference: DeployModel, *, batch: int = 3) -> Agreement:
    """Run the file in ONNX Runtime and compare with PyTorch.

    Args:
        path: What `export_onnx` wrote.
        reference: The detector that it was made from, not fused: so that fusing is checked too.
        batch: Pictures; for a file with dynamic batch any number but the export's own.

    Raises:
        ValueError: They differ; the message says by how much.
    """
    runtime = OnnxRuntime(path)
    images = pictures(batch, runtime.input_hw)
    shapes = ((PICTURE_SIDE * 3 // 4, PICTURE_SIDE), (PICTURE_SIDE, PICTURE_SIDE // 2))
    sizes_hw = torch.tensor([shapes[index % 2] for index in range(batch)])
    expected = Detections(*reference(images, sizes_hw.flip(-1)))
    try:
        return compare(expected, runtime.run(images, sizes_hw))
    except ValueError as error:
        raise ValueError(f"{path.name}: ONNX Runtime and PyTorch do not agree: {error}") from error


def export_verified(
    deploy: DeployModel,
    reference: DeployModel,
    path: Path,
    card: ModelCard,
    options: GraphOptions = PLAIN,
    *,
    check: bool = True,
) -> tuple[Exported, Agreement | None]:
    """Export, verify, and only then put the file in its place, with `export.json` beside it.

    Args:
        deploy: What is exported.
        reference: The same detector, not fused.
        path: The ONNX file.
        card: What the file says of itself.
        options: How the graph is written.
        check: Whether to verify; without it the report says that nobody did.

    Returns:
        What was written, and how far it is from PyTorch if that was checked.

    Raises:
        ValueError: An option is out of range, a package is missing, a file cannot be written, or PyTorch and
            ONNX Runtime do not agree.
    """
    started = time.perf_counter()
    with staged_folder(path.parent) as folder:
        exported = export_onnx(deploy, folder / path.name, card, options)
        agreement = verify_onnx(exported.path, reference) if check else None
        exported = exported._replace(path=path)
        digest = hashlib.sha256((folder / path.name).read_bytes()).hexdigest()
        report = {
            "file": path.name,
            "sha256": digest,
            "config": card.config,
            "input_size_hw": card.input_hw,
            "batch": options.batch or "any",
            "opset": exported.opset,
            "size_bytes": exported.size_bytes,
            "num_nodes": exported.num_nodes,
            "operators": exported.operators,
            "torch": torch.__version__,
            "seconds": round(time.perf_counter() - started, 1),
            "agreement": None if agreement is None else agreement._asdict(),
        }
        (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return exported, agreement
