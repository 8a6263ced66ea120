"""The annotations of a COCO document, checked; what can be repaired is repaired in copies.

Legend: N objects that are no crowds.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .boxes import Clipped, box_of, check_boxes
from .document import Entry, Listed, is_int, repeated
from .findings import Findings, told

CROWD_FLAGS: dict[Any, int] = {None: 0, "0": 0, "1": 1, "": 0, "false": 0, "true": 1, "False": 0, "True": 1}


class Objects(NamedTuple):
    """The annotations that can be used, repaired.

    Attributes:
        entries: All of them, crowds too, with `bbox`, `iscrowd` and `area` repaired, as COCO's tools read
            them; the document's own where there was nothing to repair.
        position: [N] int64, index of each training object's picture.
        category_ids: [N] int64.
        boxes_xyxy_px: [N, 4] float32, inside their picture, with an extent.
    """

    entries: list[Entry]
    position: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes_xyxy_px: NDArray[np.float32]


def check_objects(
    annotations: list[Any],
    listed: Listed,
    all_images: frozenset[int],
    category_ids: tuple[int, ...],
    findings: Findings,
    *,
    places: Sequence[str],
    drop_empty_boxes: bool,
) -> Objects:
    """Check the annotations against the pictures and categories of their document.

    Args:
        annotations: As the JSON has them.
        listed: The pictures that can be used.
        all_images: Ids of all pictures of the document; what belongs to a faulty one is no fault of its own.
        category_ids: Of all categories.
        findings: Where to note what is found.
        places: Where each annotation was written, if not in a COCO JSON; may be empty.
        drop_empty_boxes: Whether boxes without an extent are left out instead of being an error.
    """
    entries = [(k, a) for k, a in enumerate(annotations) if isinstance(a, dict)]
    findings.add(
        "annotation-broken",
        [f"annotations[{k}] {told(a)}" for k, a in enumerate(annotations) if not isinstance(a, dict)],
    )
    _check_ids(entries, findings)

    def place(k: int, entry: Entry) -> str:
        if places:
            return places[k]
        return f"annotation {entry['id']}" if is_int(entry.get("id")) else f"annotations[{k}]"

    known = set(category_ids)
    used: list[tuple[str, Entry]] = []
    lost: list[str] = []
    unknown: list[str] = []
    position = {image_id: k for k, image_id in enumerate(listed.ids)}
    for k, entry in entries:
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        has_picture = is_int(image_id) and image_id in all_images
        has_category = not known or (is_int(category_id) and category_id in known)
        if not has_picture:
            lost.append(f"{place(k, entry)} (image_id {told(image_id)})")
        if not has_category:
            unknown.append(f"{place(k, entry)} (category_id {told(category_id)})")
        if has_picture and has_category and known and image_id in position:
            used.append((place(k, entry), entry))
    findings.add("annotation-picture-unknown", lost)
    if unknown:
        ids = f"; 'categories' has {', '.join(map(str, category_ids[:10]))}"
        findings.add("annotation-category-unknown", [unknown[0] + ids, *unknown[1:]])
    used = _with_flags(used, findings)
    used = _with_boxes(used, findings)
    return _trained(used, listed, position, findings, drop_empty_boxes=drop_empty_boxes)


def _check_ids(entries: list[tuple[int, Entry]], findings: Findings) -> None:
    """Annotation ids are used in messages alone; other tools trust them."""
    ids = [entry.get("id") for _, entry in entries]
    numbers = [number for number in ids if is_int(number)]
    if len(numbers) < len(ids):
        findings.add(
            "annotation-id-missing", [f"annotations[{k}]" for k, e in entries if not is_int(e.get("id"))]
        )
    findings.add("annotation-id-repeated", repeated(numbers))
    findings.add("annotation-id-zero", ["annotation 0"] if 0 in numbers else [])


def _with_flags(used: list[tuple[str, Entry]], findings: Findings) -> list[tuple[str, Entry]]:
    """The annotations with `iscrowd` 0 or 1, where it can be told."""
    kept: list[tuple[str, Entry]] = []
    odd: list[str] = []
    broken: list[str] = []
    for where, entry in used:
        flag = entry.get("iscrowd", 0)
        if is_int(flag) and flag in (0, 1):
            kept.append((where, entry))
            continue
        example = f"{where} (iscrowd {told(flag)})"
        number = flag in (0, 1) if isinstance(flag, int | float) else None
        if number or (isinstance(flag, str | None) and flag in CROWD_FLAGS):
            odd.append(example)
            kept.append((where, {**entry, "iscrowd": int(flag) if number else CROWD_FLAGS[flag]}))
        else:
            broken.append(example)
    findings.add("crowd-flag-odd", odd)
    findings.add("crowd-flag-broken", broken)
    return kept


def _with_boxes(used: list[tuple[str, Entry]], findings: Findings) -> list[tuple[str, Entry]]:
    """The annotations with a box of positive width and height, and an area, where they can be had."""
    kept: list[tuple[str, Entry]] = []
    notes: dict[str, list[str]] = {
        "box-broken": [],
        "box-from-polygon": [],
        "box-swapped": [],
        "area-broken": [],
    }
    for where, entry in used:
        found = box_of(entry)
        if found is None:
            notes["box-broken"].append(f"{where} {told(entry.get('bbox'))}")
            continue
        box, changes = found, Entry()
        if entry.get("bbox") is not box:
            notes["box-from-polygon"].append(where)
            changes["bbox"] = box
        left, top, width, height = box
        if width < 0 or height < 0:
            notes["box-swapped"].append(f"{where} {told(box)}")
            box = [left + min(width, 0), top + min(height, 0), abs(width), abs(height)]
            changes["bbox"] = box
        area = entry.get("area")
        if area is not None and not _is_area(area):
            if width >= 0 and height >= 0:  # else the area is as wrong as the box, and for the same reason
                notes["area-broken"].append(f"{where} (area {told(area)})")
            changes["area"] = box[2] * box[3]
        kept.append((where, {**entry, **changes} if changes else entry))
    for code, examples in notes.items():
        findings.add(code, examples)
    return kept


def _is_area(area: object) -> bool:
    return isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area < math.inf


def _trained(
    used: list[tuple[str, Entry]],
    listed: Listed,
    position: dict[int, int],
    findings: Findings,
    *,
    drop_empty_boxes: bool,
) -> Objects:
    """Boxes of what is no crowd, clipped to their pictures."""
    alone = [(where, entry) for where, entry in used if not entry.get("iscrowd", 0)]
    rows = np.array([position[entry["image_id"]] for _, entry in alone], dtype=np.int64)
    ids = np.array([entry["category_id"] for _, entry in alone], dtype=np.int64)
    boxes = np.array([entry["bbox"] for _, entry in alone], dtype=np.float64).reshape(-1, 4)
    sizes_hw = np.array(listed.sizes_hw, dtype=np.int64).reshape(-1, 2)[rows]
    clipped: Clipped = check_boxes(
        boxes, sizes_hw, rows, ids, [where for where, _ in alone], findings, drop_empty=drop_empty_boxes
    )
    kept = clipped.kept
    return Objects([entry for _, entry in used], rows[kept], ids[kept], clipped.boxes_xyxy_px)
