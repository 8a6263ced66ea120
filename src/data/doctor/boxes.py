"""Boxes of annotations: which can be used, and how far they reach.

Legend: N boxes, K of them kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .document import Entry
from .findings import Findings

NUMBERS = (int, float)
LARGEST = 1e9  # of a coordinate, in pixels
ROUNDING = 1.0  # pixels that a box may leave its picture by without a word: formats round, or count from 1
FEWEST, FAR_SHARE = 3, 0.3  # number and share of boxes that must leave their pictures by far ...
FAR = 0.1  # ... that is, by more than this share of a side, before corners are suspected
MANY, FAR_SHARE_OF_MANY = 50, 0.05  # boxes from which on so many are right as corners by no accident
MOST = 0.95  # share of boxes that must be right as corners, or as shares
HIGHEST_SHARE = 1.01  # of a picture's side, with what rounding adds
SMALL_SIDE = 16  # pixels: below it, a picture may have real boxes of a pixel

Floats = NDArray[np.float64]


class Clipped(NamedTuple):
    """Boxes that can be trained on.

    Attributes:
        kept: [K] int64, which of the N boxes.
        boxes_xyxy_px: [K, 4] float32, inside their picture, wider and higher than 0.
    """

    kept: NDArray[np.int64]
    boxes_xyxy_px: NDArray[np.float32]


def box_of(entry: Entry) -> list[Any] | None:
    """An annotation's `bbox`, or the box around its polygons where it has none; None without a usable one."""
    box = entry.get("bbox")
    if box is None or box == []:
        return _around(entry.get("segmentation"))
    return box if isinstance(box, list) and len(box) == 4 and _are_coordinates(box) else None


def _are_coordinates(values: list[Any]) -> bool:
    for value in values:
        # the range leaves out NaN and infinity, too
        if not isinstance(value, NUMBERS) or isinstance(value, bool) or not -LARGEST < value < LARGEST:
            return False
    return True


def _around(polygons: object) -> list[float] | None:
    """The box [left, top, width, height] around polygons [[x, y, x, y, ...], ...]."""
    if not isinstance(polygons, list) or not polygons:
        return None
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        if not _are_coordinates(polygon):
            return None
    x = [value for polygon in polygons for value in polygon[::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def check_boxes(
    boxes_xywh_px: Floats,
    sizes_hw: NDArray[np.int64],
    rows: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    place: Callable[[int], str],
    findings: Findings,
    *,
    drop_empty: bool,
) -> Clipped:
    """Clip boxes to their pictures, and leave out what cannot be trained on.

    Args:
        boxes_xywh_px: [N, 4] left, top, width >= 0, height >= 0; finite.
        sizes_hw: [N, 2] of each box's picture.
        rows: [N] each box's picture.
        category_ids: [N].
        place: Where the box of an index was written, for messages.
        findings: Where to note what is found.
        drop_empty: Whether boxes without an extent are left out instead of being an error.
    """
    corners = np.concatenate((boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]), axis=1)
    limits = sizes_hw[:, [1, 0, 1, 0]].astype(np.float64)
    clipped = np.clip(corners, 0, limits).astype(np.float32)
    has_extent = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    flat = (boxes_xywh_px[:, 2:] == 0).any(axis=1)
    beyond = np.maximum(-corners, corners - limits).max(axis=1, initial=-np.inf) > ROUNDING

    def note(code: str, chosen: NDArray[np.bool_], **severity: Any) -> None:
        examples = [f"{place(k)} {_short(boxes_xywh_px[k])}" for k in np.flatnonzero(chosen).tolist()]
        findings.add(code, examples, **severity)

    if _are_corners(boxes_xywh_px, limits):
        note("boxes-as-corners", beyond)
        return _nothing()
    if _are_normalised(boxes_xywh_px, limits):
        note("boxes-normalised", np.ones(len(corners), dtype=np.bool_))
        return _nothing()
    outside = ~has_extent & ~flat & _is_outside(corners, limits)
    severity = {"severity": "repaired"} if drop_empty else {}
    note("box-empty", ~has_extent & ~outside, **severity)
    note("box-outside", outside, **severity)
    note("box-partly-outside", has_extent & beyond)
    tiny = has_extent & (np.min(clipped[:, 2:] - clipped[:, :2], axis=1, initial=1) < 1)
    note("boxes-tiny" if np.count_nonzero(tiny) > max(FEWEST - 1, len(tiny) / 2) else "box-tiny", tiny)
    again = _repeats(boxes_xywh_px, rows, category_ids)
    note("box-duplicated", has_extent & again)
    kept = np.flatnonzero(has_extent & ~again)
    return Clipped(kept, clipped[kept])


def _is_outside(corners: Floats, limits: Floats) -> NDArray[np.bool_]:
    """[N] whether a box [N, 4] of two corners has nothing in common with its picture [N, 4] (w, h, w, h)."""
    beyond = np.concatenate((corners[:, :2] >= limits[:, :2], corners[:, 2:] <= 0), axis=1)
    return np.asarray(beyond.any(axis=1), dtype=np.bool_)


def _nothing() -> Clipped:
    return Clipped(np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


def _short(box: Floats) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box.tolist()) + "]"


def _are_corners(boxes: Floats, limits: Floats) -> bool:
    """Whether the four numbers are two corners: some leave their pictures by far otherwise, and few do so."""
    far = ((boxes[:, :2] + boxes[:, 2:]) > (1 + FAR) * limits[:, :2]).any(axis=1)
    share = FAR_SHARE_OF_MANY if len(boxes) >= MANY else FAR_SHARE
    if np.count_nonzero(far) < max(FEWEST, len(boxes) * share):
        return False
    ordered = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, :2] >= 0).all(axis=1)
    return bool((ordered & (boxes <= limits + ROUNDING).all(axis=1)).mean() >= MOST)


def _are_normalised(boxes: Floats, limits: Floats) -> bool:
    """Whether the boxes are shares of their pictures instead of pixels; tiny pictures have no say."""
    told = boxes[limits.min(axis=1) >= SMALL_SIDE]
    return len(told) > 0 and bool(((told >= 0) & (told <= HIGHEST_SHARE)).all(axis=1).mean() >= MOST)


def _repeats(boxes: Floats, rows: NDArray[np.int64], category_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N] whether an earlier box of the same picture and category is the same."""
    keys = (*boxes.T, category_ids, rows)
    order = np.lexsort(keys)  # stable: of equal boxes the earliest comes first
    same = np.zeros(len(order), dtype=np.bool_)
    if len(order) > 1:
        before, after = order[:-1], order[1:]
        same[after] = np.logical_and.reduce([key[before] == key[after] for key in keys])
    return same
