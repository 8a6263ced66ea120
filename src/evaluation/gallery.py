"""Pictures to look at: what was found beside the truth, and the worst errors of each kind.

Legend: N boxes of one picture.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..ops.drawing import Colour, draw_boxes
from .errors import KINDS, ErrorSplit
from .matching import box_ious
from .scored import Assigned, Scored

Pictures = Callable[[int], tuple[str, Image.Image]]
"""A picture's file name and pixels, by its id in the annotation file."""

TRUTH_COLOUR, FOUND_COLOUR = (0, 190, 255), (255, 106, 0)  # told apart by colour-blind eyes, too
PAIR_SIDE, CROP_SIDE = 480, 260
CONTEXT = 0.4  # of the boxes' size, around them
SHEET_GAP, SHEET_TEXT = 12, 34


class Tile(NamedTuple):
    """What stands together in a gallery: pictures side by side, what is said of them, and the file's name."""

    pictures: tuple[Image.Image, ...]
    caption: str
    source: str


def prediction_tiles(
    scored: Scored, assigned: Assigned, pictures: Pictures, threshold: float, count: int
) -> list[Tile]:
    """Pictures spread evenly over the set: the true objects, and beside them what is found.

    Args:
        scored: The evaluation.
        assigned: Its detections with their objects.
        pictures: Where they come from.
        threshold: Least score of the detections to be drawn.
        count: How many pictures, at most.
    """
    truth, found, names = scored.truth, assigned.found, scored.classes.names
    num_images = len(truth.image_ids)
    tiles = []
    for row in np.unique(np.linspace(0, max(num_images - 1, 0), min(count, num_images)).round().astype(int)):
        name, picture = pictures(int(truth.image_ids[row]))
        scale = min(1.0, PAIR_SIDE / max(picture.size))
        picture = picture.convert("RGB").resize(_scaled(picture.size, scale), Image.Resampling.LANCZOS)
        own = (truth.image_index == row) & ~truth.crowd
        seen = (found.image_index == row) & (found.scores >= threshold)
        sides = (
            _drawn(picture, truth.boxes_xywh_px[own] * scale, truth.labels[own], None, names),
            _drawn(picture, found.boxes_xywh_px[seen] * scale, found.labels[seen], found.scores[seen], names),
        )
        right = np.count_nonzero(seen & assigned.hits)
        caption = f"{own.sum()} objects, {seen.sum()} detections, {right} of them right"
        tiles.append(Tile(sides, caption, name))
    return tiles


def error_tiles(
    scored: Scored, assigned: Assigned, split: ErrorSplit, pictures: Pictures, count: int
) -> dict[str, list[Tile]]:
    """The worst errors of each kind, cut out: the detections with the highest scores, the largest misses."""
    tiles: dict[str, list[Tile]] = {}
    for number, kind in enumerate(list(KINDS)[:-1]):
        rows = np.flatnonzero(split.kinds == number)[:count]
        tiles[kind] = [_wrong_detection(scored, assigned, split, pictures, row) for row in rows.tolist()]
    missed = np.flatnonzero(split.missed)
    missed = missed[np.argsort(-assigned.truth.areas[missed], kind="stable")][:count]
    tiles["missed"] = [_missed_object(scored, assigned, pictures, row) for row in missed.tolist()]
    return tiles


def sheet(tiles: Sequence[Tile], columns: int) -> Image.Image:
    """All tiles on one white sheet, each with its caption below; a line that says so where there are none."""
    font = ImageFont.load_default(13)
    if not tiles:
        empty = Image.new("RGB", (360, 60), "white")
        ImageDraw.Draw(empty).text((16, 22), "there are none", fill=(90, 90, 90), font=font)
        return empty
    rows = [_side_by_side(tile.pictures) for tile in tiles]
    columns = min(columns, len(rows))
    width = max(row.width for row in rows) + SHEET_GAP
    heights = [
        max(row.height for row in rows[start : start + columns]) + SHEET_TEXT + SHEET_GAP
        for start in range(0, len(rows), columns)
    ]
    page = Image.new("RGB", (columns * width + SHEET_GAP, sum(heights) + SHEET_GAP), "white")
    draw = ImageDraw.Draw(page)
    for number, (tile, row) in enumerate(zip(tiles, rows, strict=True)):
        line, column = divmod(number, columns)
        x, y = SHEET_GAP + column * width, SHEET_GAP + sum(heights[:line])
        page.paste(row, (x, y))
        text = "\n".join(_fitting(line, width - SHEET_GAP, font) for line in (tile.caption, tile.source))
        draw.text((x, y + row.height + 4), text, fill=(55, 65, 81), font=font)
    return page


def _wrong_detection(
    scored: Scored, assigned: Assigned, split: ErrorSplit, pictures: Pictures, row: int
) -> Tile:
    found, truth, names = assigned.found, assigned.truth, scored.classes.names
    name, picture = pictures(int(truth.image_ids[found.image_index[row]]))
    box = found.boxes_xywh_px[row]
    own = int(split.near[row])
    told = f"{names[found.labels[row]]} {found.scores[row]:.2f}"
    if own < 0:
        return Tile((_crop(picture, None, box),), told, name)
    iou = box_ious(box[None], truth.boxes_xywh_px[[own]], np.zeros(1, np.bool_))[0]
    other = "" if truth.labels[own] == found.labels[row] else f", is {names[truth.labels[own]]}"
    crop = _crop(picture, truth.boxes_xywh_px[own], box)
    return Tile((crop,), f"{told}{other}, IoU {iou:.2f}", name)


def _missed_object(scored: Scored, assigned: Assigned, pictures: Pictures, row: int) -> Tile:
    truth = assigned.truth
    name, picture = pictures(int(truth.image_ids[truth.image_index[row]]))
    crop = _crop(picture, truth.boxes_xywh_px[row], None)
    return Tile((crop,), scored.classes.names[truth.labels[row]], name)


def _drawn(
    picture: Image.Image,
    boxes_xywh_px: NDArray[np.float64],
    labels: NDArray[np.int64],
    scores: NDArray[np.float64] | None,
    names: Sequence[str],
) -> Image.Image:
    """The picture with N boxes on it."""
    corners = np.concatenate((boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]), 1)
    certainty = None if scores is None else torch.from_numpy(scores)
    return draw_boxes(picture, torch.from_numpy(corners), torch.from_numpy(labels), certainty, names)


def _crop(
    picture: Image.Image, truth_xywh: NDArray[np.float64] | None, found_xywh: NDArray[np.float64] | None
) -> Image.Image:
    """The part of the picture around one or two boxes, with the boxes drawn on it."""
    boxes = [
        (xywh, c) for xywh, c in ((truth_xywh, TRUTH_COLOUR), (found_xywh, FOUND_COLOUR)) if xywh is not None
    ]
    corners = np.array([(*xywh[:2], *(xywh[:2] + xywh[2:])) for xywh, _ in boxes])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    side = max(float((high - low).max()) * (1 + 2 * CONTEXT), 48.0)
    centre = (low + high) / 2
    size = np.array(picture.size, float)
    start = np.floor(np.minimum(centre - side / 2, size - side).clip(0))  # moved inside, to stay square
    stop = np.minimum(np.ceil(start + side), size)
    start = np.minimum(start, stop - 1)
    scale = CROP_SIDE / float((stop - start).max())
    frame = (int(start[0]), int(start[1]), int(stop[0]), int(stop[1]))
    part = picture.convert("RGB").crop(frame)
    part = part.resize(_scaled(part.size, scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(part)
    for (x0, y0, x1, y1), (_, colour) in zip(corners, boxes, strict=True):
        box = (
            (x0 - start[0]) * scale,
            (y0 - start[1]) * scale,
            (x1 - start[0]) * scale,
            (y1 - start[1]) * scale,
        )
        _frame(draw, box, part.size, colour)
    return part


def _frame(draw: ImageDraw.ImageDraw, box: tuple[float, ...], size: tuple[int, int], colour: Colour) -> None:
    """A coloured frame in a thin dark one, so that it shows on any ground; kept inside the picture."""
    left, top = (min(max(round(v), 0), edge - 1) for v, edge in zip(box[:2], size, strict=True))
    right, bottom = (min(max(round(v), 0), edge - 1) for v, edge in zip(box[2:], size, strict=True))
    right, bottom = max(left, right), max(top, bottom)
    draw.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=5)
    if right - left > 2 and bottom - top > 2:
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=colour, width=3)


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    row = Image.new(
        "RGB",
        (sum(p.width for p in pictures) + 6 * (len(pictures) - 1), max(p.height for p in pictures)),
        "white",
    )
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + 6
    return row


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the text as a line of this width holds."""
    text = " ".join(text.split())
    shown = text
    while font.getlength(shown) > width and len(shown) > 1:
        shown = f"{shown[:-2]}…"
    return shown


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
