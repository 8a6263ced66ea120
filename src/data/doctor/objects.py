"""The annotations of a COCO document, checked; what can be repaired is repaired in copies.

Legend: N objects that are no crowds.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .boxes import box_of, check_boxes
from .document import Entry, Listed, is_int, repeated
from .findings import Findings, told

Place = Callable[[int], str]  # where an annotation was written, by its index
NUMBERS = (int, float)
BOX_CODES = ("box-broken", "box-from-polygon", "box-swapped", "area-broken")
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
    entries = list(annotations)
    whole = [k for k, entry in enumerate(entries) if isinstance(entry, dict)]
    if len(whole) < len(entries):
        broken = [k for k, entry in enumerate(entries) if not isinstance(entry, dict)]
        findings.add("annotation-broken", [f"annotations[{k}] {told(entries[k])}" for k in broken])
    _check_ids(entries, whole, findings)

    def place(k: int) -> str:
        if places:
            return places[k]
        number = entries[k].get("id")
        return f"annotation {number}" if is_int(number) else f"annotations[{k}]"

    used = _with_references(entries, whole, place, all_images, category_ids, findings)
    position = {image_id: k for k, image_id in enumerate(listed.ids)}
    used = [k for k in used if entries[k]["image_id"] in position]
    used = _with_flags(entries, used, place, findings)
    used = _with_boxes(entries, used, place, findings)
    return _trained(entries, used, place, listed, position, findings, drop_empty_boxes=drop_empty_boxes)


def _check_ids(entries: list[Any], whole: list[int], findings: Findings) -> None:
    """Annotation ids are used in messages alone; other tools trust them."""
    numbers = [number for k in whole if is_int(number := entries[k].get("id"))]
    if len(numbers) < len(whole):
        without = [k for k in whole if not is_int(entries[k].get("id"))]
        findings.add("annotation-id-missing", [f"annotations[{k}]" for k in without])
    findings.add("annotation-id-repeated", repeated(numbers))
    findings.add("annotation-id-zero", ["annotation 0"] if 0 in numbers else [])


def _with_references(
    entries: list[Any],
    whole: list[int],
    place: Place,
    all_images: frozenset[int],
    category_ids: tuple[int, ...],
    findings: Findings,
) -> list[int]:
    """Which annotations are of a picture and a category of the document."""
    known = frozenset(category_ids)
    used: list[int] = []
    lost: list[str] = []
    unknown: list[str] = []
    for k in whole:
        image_id, category_id = entries[k].get("image_id"), entries[k].get("category_id")
        has_picture = is_int(image_id) and image_id in all_images
        has_category = is_int(category_id) and category_id in known
        if has_picture and has_category:
            used.append(k)
            continue
        if not has_picture:
            lost.append(f"{place(k)} (image_id {told(image_id)})")
        if not has_category and known:  # else another finding says that there is none
            unknown.append(f"{place(k)} (category_id {told(category_id)})")
    findings.add("annotation-picture-unknown", lost)
    if unknown:
        ids = f"; 'categories' has {', '.join(map(str, category_ids[:10]))}"
        findings.add("annotation-category-unknown", [unknown[0] + ids, *unknown[1:]])
    return used


def _with_flags(entries: list[Any], used: list[int], place: Place, findings: Findings) -> list[int]:
    """The annotations whose `iscrowd` can be told; where it is written otherwise, it becomes 0 or 1."""
    odd: list[str] = []
    broken: dict[int, str] = {}
    for k in used:
        flag = entries[k].get("iscrowd", 0)
        if type(flag) is int and flag in (0, 1):
            continue
        example = f"{place(k)} (iscrowd {told(flag)})"
        if isinstance(flag, NUMBERS) and flag in (0, 1):
            odd.append(example)
            entries[k] = {**entries[k], "iscrowd": int(flag)}
        elif isinstance(flag, str | None) and flag in CROWD_FLAGS:
            odd.append(example)
            entries[k] = {**entries[k], "iscrowd": CROWD_FLAGS[flag]}
        else:
            broken[k] = example
    findings.add("crowd-flag-odd", odd)
    findings.add("crowd-flag-broken", list(broken.values()))
    return [k for k in used if k not in broken] if broken else used


def _with_boxes(entries: list[Any], used: list[int], place: Place, findings: Findings) -> list[int]:
    """The annotations with a box; its width and height become positive, and its area a number."""
    kept: list[int] = []
    notes: dict[str, list[str]] = {code: [] for code in BOX_CODES}
    for k in used:
        entry = entries[k]
        found = box_of(entry)
        if found is None:
            notes["box-broken"].append(f"{place(k)} {told(entry.get('bbox'))}")
            continue
        kept.append(k)
        box, changes = found, Entry()
        if entry.get("bbox") is not box:
            notes["box-from-polygon"].append(place(k))
            changes["bbox"] = box
        left, top, width, height = box
        if width < 0 or height < 0:
            notes["box-swapped"].append(f"{place(k)} {told(box)}")
            box = [left + min(width, 0), top + min(height, 0), abs(width), abs(height)]
            changes["bbox"] = box
        area = entry.get("area")
        if area is not None and not _is_area(area):
            if width >= 0 and height >= 0:  # else the area is as wrong as the box, and for the same reason
                notes["area-broken"].append(f"{place(k)} (area {told(area)})")
            changes["area"] = box[2] * box[3]
        if changes:
            entries[k] = {**entry, **changes}
    for code, examples in notes.items():
        findings.add(code, examples)
    return kept


def _is_area(area: object) -> bool:
    return isinstance(area, NUMBERS) and not isinstance(area, bool) and 0 <= area < math.inf


def _trained(
    entries: list[Any],
    used: list[int],
    place: Place,
    listed: Listed,
    position: dict[int, int],
    findings: Findings,
    *,
    drop_empty_boxes: bool,
) -> Objects:
    """Boxes of what is no crowd, clipped to their pictures."""
    alone = [k for k in used if not entries[k].get("iscrowd", 0)]
    rows = np.array([position[entries[k]["image_id"]] for k in alone], dtype=np.int64)
    ids = np.array([entries[k]["category_id"] for k in alone], dtype=np.int64)
    boxes = np.array([entries[k]["bbox"] for k in alone], dtype=np.float64).reshape(-1, 4)
    sizes_hw = np.array(listed.sizes_hw, dtype=np.int64).reshape(-1, 2)[rows]
    kept, clipped = check_boxes(
        boxes, sizes_hw, rows, ids, lambda i: place(alone[i]), findings, drop_empty=drop_empty_boxes
    )
    return Objects([entries[k] for k in used], rows[kept], ids[kept], clipped)
