"""COCO's measure over any number of processes: each picture counts exactly once.

Legend: B pictures of a batch, K detections of a picture, P pictures, D detections, C classes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ..distributed import barrier, gather_rows, is_distributed, is_main
from ..structures import ClassNames, Detections, GroundTruth
from .matching import Curves, Found
from .metrics import NAMES, ClassMetrics, CocoMetrics
from .scored import Scored
from .scoring import Backend, score

logger = logging.getLogger(__name__)


class CocoEvaluator:
    """Collects detections picture by picture and scores them as COCO does.

    Every rank keeps its own detections in plain tensors; `compute` brings them together, so that a picture
    that a sampler gave to several ranks counts once, and rank 0 alone scores.

    Args:
        ann_file: Where the objects were read, for messages.
        classes: The classes that all labels count.
        truth: The objects of the pictures to be evaluated.
        backend: What matches and counts, our own arrays or a library; the numbers are the same.

    Raises:
        ValueError: The backend is unknown.
    """

    def __init__(
        self,
        ann_file: str | Path,
        classes: ClassNames,
        truth: GroundTruth,
        *,
        backend: Backend = "numpy",
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError(f"backend '{backend}' is unknown: {', '.join(get_args(Backend))}")
        self._ann_file = str(ann_file)
        self._classes = classes
        self._backend: Backend = backend
        self._image_ids = truth.image_ids
        self._truth = truth if is_main() else None  # the other ranks need the ids alone
        self._known = frozenset(truth.image_ids.tolist())
        self._warned = False
        self.reset()

    def reset(self) -> None:
        """Forget all detections, for the next evaluation of the same pictures."""
        self._pictures: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._scored: Scored | None = None

    @property
    def scored(self) -> Scored | None:
        """What the last `compute` scored, for a report; None on every rank but the main one."""
        return self._scored

    def update(self, image_ids: Sequence[int], detections: Detections) -> None:
        """Keep the detections of a batch, on any device.

        Args:
            image_ids: B ids as the annotation file has them.
            detections: [B, K] of them; boxes in pixels of the picture as stored.

        Raises:
            ValueError: An id is not in the annotation file, the sizes differ, a label is no class, or a value
                is not finite.
        """
        labels, boxes_xyxy_px, scores = (part.detach() for part in detections)
        if not len(image_ids) == labels.shape[0] == boxes_xyxy_px.shape[0] == scores.shape[0]:
            raise ValueError(f"{len(image_ids)} image ids came with detections of {labels.shape[0]} pictures")
        unknown = [int(i) for i in image_ids if int(i) not in self._known]
        if unknown:
            raise ValueError(
                f"image id {unknown[0]} is not in {self._ann_file} ({len(self._known)} pictures); "
                "evaluate with the annotation file that the pictures were read by"
            )
        # float32 holds every label below 2^24 exactly: one transfer instead of three
        exact = torch.promote_types(torch.promote_types(boxes_xyxy_px.dtype, scores.dtype), torch.float32)
        packed = torch.cat(
            (boxes_xyxy_px.to(exact), scores[..., None].to(exact), labels[..., None].to(exact)), -1
        ).cpu()
        if not torch.isfinite(packed).all():
            raise ValueError(f"detections of the pictures {list(image_ids)} hold values that are not finite")
        if packed.numel() and not 0 <= packed[..., 5].min() <= packed[..., 5].max() < len(self._classes.ids):
            raise ValueError(f"detections have labels that are none of the {len(self._classes.ids)} classes")
        counts = torch.full((len(image_ids),), labels.shape[1], dtype=torch.int64)
        self._pictures.append(torch.stack((torch.tensor([int(i) for i in image_ids]), counts), 1))
        self._rows.append(packed.flatten(0, 1))

    def compute(self) -> CocoMetrics:
        """Score what all ranks have collected; a collective call that gives every rank the same metrics.

        A picture that several updates report counts with its first detections, in the order of the ranks.
        One that no rank reports counts as a picture without detections.
        """
        device = _collective_device()
        no_pictures = torch.zeros(0, 2, dtype=torch.int64)
        pictures = gather_rows(torch.cat([no_pictures, *self._pictures]).to(device))
        no_rows = torch.zeros(0, 6, dtype=torch.float64)
        rows = gather_rows(torch.cat([no_rows, *(part.double() for part in self._rows)]).to(device))
        numbers = torch.zeros(0, dtype=torch.float64)
        if self._truth is not None and is_main():
            found = self._found(torch.cat(pictures).cpu().numpy(), torch.cat(rows).cpu().numpy())
            num_classes = len(self._classes.ids)
            curves = score(self._truth, found, num_classes, self._backend)
            counted = _numbers(curves, self._truth.num_objects(num_classes))
            metrics = _metrics(counted, self._classes)
            self._scored = Scored(self._truth, found, curves, metrics, self._classes)
            numbers = torch.from_numpy(counted)
        barrier()  # where ranks may wait for long: scoring a large set takes the main one its time
        # rank 0's rows come first and the others have none: this is a broadcast
        return _metrics(gather_rows(numbers.to(device))[0].cpu().numpy(), self._classes)

    def _found(self, pictures: NDArray[np.int64], rows: NDArray[np.float64]) -> Found:
        """Detections of each picture's first report.

        Args:
            pictures: [P, 2] image id and number of detections.
            rows: [D, 6] xyxy box in pixels, score, label; in the order of `pictures`.
        """
        reported, first = np.unique(pictures[:, 0], return_index=True)
        missing = len(self._image_ids) - len(reported)
        if missing and not self._warned:
            logger.warning(
                "%d of the %d pictures of %s were never reported: they count as pictures without detections",
                missing,
                len(self._image_ids),
                self._ann_file,
            )
            self._warned = True
        is_first = np.zeros(len(pictures), np.bool_)
        is_first[first] = True
        counted = np.repeat(is_first, pictures[:, 1])
        image_index = np.repeat(np.searchsorted(self._image_ids, pictures[:, 0]), pictures[:, 1])
        rows = rows[counted]
        boxes_xywh_px = np.concatenate((rows[:, :2], rows[:, 2:4] - rows[:, :2]), 1)
        return Found(image_index[counted], rows[:, 5].astype(np.int64), boxes_xywh_px, rows[:, 4])


def _collective_device() -> torch.device:
    """Where tensors must lie to be gathered."""
    if is_distributed() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what could be measured, -1 where nothing could."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


def _numbers(curves: Curves, num_objects: NDArray[np.int64]) -> NDArray[np.float64]:
    """[12 + 4 * C]: COCO's numbers, then AP, AP50, AR_100 and the number of objects of each class."""
    precision, recall = curves
    summary = [
        _mean(precision[:, :, :, 0]),
        _mean(precision[0, :, :, 0]),  # IoU 0.50
        _mean(precision[5, :, :, 0]),  # IoU 0.75
        *(_mean(precision[:, :, :, area]) for area in (1, 2, 3)),
        *(_mean(recall[:, :, 0, limit]) for limit in (0, 1, 2)),
        *(_mean(recall[:, :, area, 2]) for area in (1, 2, 3)),
    ]
    for label, count in enumerate(num_objects.tolist()):
        summary += [
            _mean(precision[:, :, label, 0]),
            _mean(precision[0, :, label, 0]),
            _mean(recall[:, label, 0, 2]),
            float(count),
        ]
    return np.array(summary)


def _metrics(numbers: NDArray[np.float64], classes: ClassNames) -> CocoMetrics:
    """The numbers that `_numbers` packed, by name."""
    values = numbers.tolist()
    rows = tuple(
        ClassMetrics(
            name, original, values[start], values[start + 1], values[start + 2], int(values[start + 3])
        )
        for name, original, start in zip(classes.names, classes.ids, range(12, len(values), 4), strict=True)
    )
    return CocoMetrics(**dict(zip(NAMES, values, strict=False)), classes=rows)
