"""What travels between the rooms of the house: one picture's way from the file to its detections.

Legend: B batch, N objects of one picture, T objects of a whole batch, Q queries, C classes,
K detections kept, R = reg_max + 1 distribution bins, P pictures and G objects of a whole dataset.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Level(NamedTuple):
    """One map of a feature pyramid, as the part that makes it states it.

    Attributes:
        channels: Width of the map.
        stride: Input pixels per cell, along each side.
    """

    channels: int
    stride: int


class Target(NamedTuple):
    """The objects of one picture, in its pixels.

    Attributes:
        boxes_xyxy_px: [N, 4] float32, corners in pixels of the picture as it is now.
        labels: [N] int64, contiguous class indices from 0.
        image_id: The picture's id in its annotation file.
        size_hw: (height, width) of the picture as stored, before any transform.
    """

    boxes_xyxy_px: Tensor
    labels: Tensor
    image_id: int
    size_hw: tuple[int, int]


class Targets(NamedTuple):
    """The objects of a batch, packed: the rows of one picture follow each other.

    Attributes:
        boxes_cxcywh: [T, 4] float32 in [0, 1] of the (unpadded) network input.
        labels: [T] int64, contiguous class indices from 0.
        counts: Objects of each picture, on the host; they add up to T and may be 0.
        image_ids: B ids.
        sizes_hw: B pairs (height, width) of the pictures as stored.
    """

    boxes_cxcywh: Tensor
    labels: Tensor
    counts: tuple[int, ...]
    image_ids: tuple[int, ...]
    sizes_hw: tuple[tuple[int, int], ...]

    def to(self, device: torch.device | str) -> "Targets":
        """The same targets with their tensors on `device`."""
        return self._replace(
            boxes_cxcywh=self.boxes_cxcywh.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


class Batch(NamedTuple):
    """What the loader gives.

    Attributes:
        images: [B, 3, H, W] uint8, RGB.
        targets: The objects of these pictures.
    """

    images: Tensor
    targets: Targets

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""
        return Batch(self.images.to(device, non_blocking=True), self.targets.to(device))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by torch's DataLoader)."""
        targets = self.targets._replace(
            boxes_cxcywh=self.targets.boxes_cxcywh.pin_memory(), labels=self.targets.labels.pin_memory()
        )
        return Batch(self.images.pin_memory(), targets)


class LayerOutput(NamedTuple):
    """What one stage of the decoder says of its queries.

    Attributes:
        logits: [B, Q, C] class logits.
        boxes_cxcywh: [B, Q, 4] in units of the unpadded picture.
        corners: [B, Q, 4 * R] logits of the edge distributions, None where the stage has none.
        reference_boxes: [B, Q, 4] cxcywh boxes that `corners` refine (detached), None with `corners`.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    corners: Tensor | None = None
    reference_boxes: Tensor | None = None


class Denoising(NamedTuple):
    """Outputs for the noised copies of the true objects (contrastive denoising, DINO section 3.3).

    Query g * 2 * M + i of a picture is group g's positive copy of that picture's object i, query
    g * 2 * M + M + i its negative copy, where M is the largest object count of the batch; rows of
    pictures with fewer objects are padding.

    Attributes:
        layers: One output for each decoder layer, the last one last.
        pre: The boxes before refinement, with layer 0's logits.
        num_groups: Copies of every object, at least 1.
        max_count: M, at least 1.
    """

    layers: tuple[LayerOutput, ...]
    pre: LayerOutput
    num_groups: int
    max_count: int


class TrainOutput(NamedTuple):
    """What the model gives in training.

    Attributes:
        layers: One output for each decoder layer, the last one last.
        pre: The boxes before refinement, with layer 0's logits.
        encoder: The queries as the encoder proposed them.
        denoising: Outputs of the denoising queries; None where denoising is switched off.
        bins: [R] the weighting function W(n) (D-FINE eq. 3), for the losses of `corners`.
        reg_scale: The weighting function's curvature, D-FINE's c.
    """

    layers: tuple[LayerOutput, ...]
    pre: LayerOutput
    encoder: LayerOutput
    denoising: Denoising | None
    bins: Tensor
    reg_scale: float


class GuidedOutput(NamedTuple):
    """What the model gives in training beside `TrainOutput` where a teacher or its own past guides it.

    Attributes:
        detected: What it gives without a guide.
        images: [B, 3, H, W] in [0, 1], the pictures it was called with.
        projected: [B, E, h, w] the encoder's coarsest attended map, at the teacher's width E; None without
            a teacher.
        tokens: [B, D, 2h, 2w] the ViT's normed patch tokens at the deepest tap; None where it has no anchor.
        vit_images: [B, 3, 32h, 32w] the pictures as the ViT got them, normalised and padded; None with
            `tokens`.
    """

    detected: TrainOutput
    images: Tensor
    projected: Tensor | None
    tokens: Tensor | None
    vit_images: Tensor | None


class FinalOutput(NamedTuple):
    """What the model gives in evaluation.

    Attributes:
        logits: [B, Q, C] class logits.
        boxes_cxcywh: [B, Q, 4] in units of the unpadded picture.
    """

    logits: Tensor
    boxes_cxcywh: Tensor


class Detections(NamedTuple):
    """Final detections of a batch, best first.

    Attributes:
        labels: [B, K] int64, contiguous class indices from 0.
        boxes_xyxy_px: [B, K, 4] corners in pixels of the picture as stored.
        scores: [B, K] in [0, 1].
    """

    labels: Tensor
    boxes_xyxy_px: Tensor
    scores: Tensor


class ClassNames(NamedTuple):
    """The classes of a dataset or checkpoint, by contiguous index.

    Attributes:
        names: One name for each class.
        ids: The id that each class has in its annotation file.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]


class GroundTruth(NamedTuple):
    """The objects of a dataset as its annotation file states them, crowds and empty boxes too, to be scored.

    Attributes:
        image_ids: [P] int64, ascending.
        image_index: [G] int64, row of `image_ids`.
        labels: [G] int64, contiguous class indices from 0.
        boxes_xywh_px: [G, 4] float64, left, top, width and height in pixels.
        areas: [G] float64, the file's `area` (of the mask, where there is one), else width * height.
        crowd: [G] bool.
    """

    image_ids: NDArray[np.int64]
    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes_xywh_px: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "GroundTruth":
        """These objects of the same pictures."""
        return self._replace(
            image_index=self.image_index[chosen],
            labels=self.labels[chosen],
            boxes_xywh_px=self.boxes_xywh_px[chosen],
            areas=self.areas[chosen],
            crowd=self.crowd[chosen],
        )

    def num_objects(self, num_classes: int) -> NDArray[np.int64]:
        """[C] objects of each class, crowd regions left out."""
        return np.bincount(self.labels[~self.crowd], minlength=num_classes).astype(np.int64)
