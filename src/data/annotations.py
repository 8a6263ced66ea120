"""COCO's JSON, read and checked.

Legend: M pictures, N objects of the whole file.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..structures import ClassNames, GroundTruth
from .doctor import Checked, Findings, check_document, check_kind, read_document, strangers
from .formats import Source
from .packed import PackedAnnotations

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 5


def read_annotations(
    path: Path, source: Source | None = None, *, drop_empty_boxes: bool = False, scored: bool = False
) -> PackedAnnotations:
    """Read and check a COCO annotation file, and repair what the doctor can repair.

    Category ids may have gaps: labels are numbered by ascending id. Boxes are clipped to their picture.

    Args:
        path: The JSON file.
        source: What another format's reader made of `path`; None reads it as JSON.
        drop_empty_boxes: Leave boxes without any extent out, with a warning, instead of refusing the file.
        scored: Keep the objects as they are stated, too.

    Raises:
        ValueError: Anything that is wrong with the file, with its place and the remedy.
    """
    findings = Findings(str(path))
    checked = _checked(path, source, findings, drop_empty_boxes=drop_empty_boxes)
    return pack(checked, findings, scored=scored)


def read_repaired(path: Path, source: Source | None = None) -> dict[str, Any]:
    """The document, repaired where COCO's tools could not read it as it is meant.

    Boxes of no extent, boxes over the edge and repeated ones stay as the file has them: COCO's tools can read
    those.

    Raises:
        ValueError: As `read_annotations`.
    """
    return _checked(path, source, Findings(str(path)), drop_empty_boxes=True).document


def _checked(path: Path, source: Source | None, findings: Findings, *, drop_empty_boxes: bool) -> Checked:
    for fault in source.faults if source else ():
        findings.add(fault.kind, [fault])
    document = check_kind(source.document, findings) if source else read_document(path, findings)
    findings.refuse()
    assert document is not None, "a document that cannot be read is an error"
    places = source.places if source else ()
    checked = check_document(document, findings, places=places, drop_empty_boxes=drop_empty_boxes)
    findings.refuse()
    return checked


def pack(checked: Checked, findings: Findings, *, scored: bool) -> PackedAnnotations:
    """The pictures and objects to train on, in a few tensors; those to be scored where that is asked for.

    Which boxes are left out is said in a warning.
    """
    repaired = [finding for finding in findings.all() if finding.severity == "repaired"]
    dropped = "; ".join(f.sentence() for f in repaired if f.code in ("box-empty", "box-outside"))
    if dropped:
        logger.warning("annotation file %s", dropped)
    listed, objects = checked.listed, checked.objects
    names = [name.encode("utf-8", "surrogatepass") for name in listed.names]
    order = np.argsort(objects.position, kind="stable")
    labels = np.searchsorted(np.array(checked.classes.ids, dtype=np.int64), objects.category_ids[order])
    return PackedAnnotations(
        image_ids=torch.tensor(listed.ids, dtype=torch.int64),
        sizes_hw=torch.tensor(listed.sizes_hw, dtype=torch.int64).reshape(-1, 2),
        name_bytes=torch.from_numpy(np.frombuffer(b"".join(names), dtype=np.uint8).copy()),
        name_ends=_ends(np.array([len(name) for name in names], dtype=np.int64)),
        boxes_xyxy_px=torch.from_numpy(objects.boxes_xyxy_px[order]),
        labels=torch.from_numpy(labels),
        ends=_ends(np.bincount(objects.position, minlength=len(listed.ids))),
        classes=checked.classes,
        dropped=dropped,
        stated=_stated(checked) if scored else None,
    )


def _stated(checked: Checked) -> GroundTruth:
    entries = checked.objects.entries
    image_ids = np.unique(np.array(checked.listed.ids, np.int64))
    owner_ids = np.array([entry["image_id"] for entry in entries], np.int64)
    category_ids = np.array([entry["category_id"] for entry in entries], np.int64)
    boxes = [entry["bbox"] for entry in entries]
    stated = [entry.get("area") for entry in entries]
    areas = [w * h if area is None else area for area, (_, _, w, h) in zip(stated, boxes, strict=True)]
    return GroundTruth(
        image_ids,
        np.searchsorted(image_ids, owner_ids),
        np.searchsorted(np.array(checked.classes.ids, np.int64), category_ids),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(areas, np.float64),
        np.array([bool(entry.get("iscrowd", 0)) for entry in entries], np.bool_),
    )


def follow_classes(packed: PackedAnnotations, classes: ClassNames, path: Path) -> PackedAnnotations:
    """The same objects with their labels numbered as `classes`, those of the training set.

    Raises:
        ValueError: The file `path`, which they come from, has other categories.
    """
    if others := strangers(packed.classes, classes):
        known = [f"{i} {n!r}" for i, n in zip(classes.ids, classes.names, strict=True)]
        raise ValueError(
            f"annotation file {path}: categories {examples(others)} are not those of the training set (or "
            f"checkpoint), which has {examples(known)}; use the same ids and names in both files"
        )
    label_of = {category_id: k for k, category_id in enumerate(classes.ids)}
    labels = torch.tensor([label_of[category_id] for category_id in packed.classes.ids], dtype=torch.int64)
    stated = packed.stated and packed.stated._replace(labels=labels.numpy()[packed.stated.labels])
    return packed._replace(labels=labels[packed.labels], classes=classes, stated=stated)


def _ends(counts: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def examples(items: Sequence[object]) -> str:
    """The first few items, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:MAX_EXAMPLES])
    return shown if len(items) <= MAX_EXAMPLES else f"{shown} and {len(items) - MAX_EXAMPLES} more"
