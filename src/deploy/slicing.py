"""Large pictures in overlapping tiles, so that small objects are seen at their full size.

Legend: K detections of a tile or picture.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torchvision.ops import batched_nms

from .predictor import Found, Predictor

MERGE_IOU = 0.5
"""Of two detections of one class that overlap by more than this, the one of the higher score is kept."""
MARGIN = 0.01
"""Share of a tile's side within which a box is taken to be cut by the tile's border."""
MAX_OVERLAP = 0.9


class Tile(NamedTuple):
    """A part of a picture, in its pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


def tiles(size_hw: tuple[int, int], slice_px: int, overlap: float) -> list[Tile]:
    """Tiles of `slice_px` x `slice_px` that cover a picture, spread evenly, row by row.

    A side that is shorter than a tile shortens the tiles.

    Args:
        size_hw: The picture's (height, width).
        slice_px: Side of a tile.
        overlap: Least share of a tile's side that it has in common with its neighbour.

    Raises:
        ValueError: A setting is out of range.
    """
    if slice_px < 1:
        raise ValueError(f"slices of {slice_px} pixels were asked for, allowed are 1 or more")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise ValueError(f"overlap {overlap} of slices was asked for, allowed are 0 to {MAX_OVERLAP}")
    step = max(1, math.floor(slice_px * (1 - overlap)))
    rows, columns = (_starts(length, slice_px, step) for length in size_hw)
    height, width = size_hw
    return [Tile(x, y, min(x + slice_px, width), min(y + slice_px, height)) for y in rows for x in columns]


def _starts(length: int, slice_px: int, step: int) -> list[int]:
    """Where tiles begin, along one side."""
    beyond = max(0, length - slice_px)
    count = math.ceil(beyond / step)
    return [round(index * beyond / count) for index in range(count)] + [beyond]


def uncut(found: Found, tile: Tile, size_hw: tuple[int, int]) -> Found:
    """What was found in a tile, in pixels of the picture, less what the tile's border may have cut.

    A neighbour sees such an object whole where it is smaller than the overlap, and else the full picture.

    Args:
        found: Boxes in pixels of the tile.
        tile: Where it lies.
        size_hw: The picture's (height, width).
    """
    boxes = found.boxes_xyxy_px + torch.tensor([tile.x0, tile.y0, tile.x0, tile.y0])
    height, width = size_hw
    across, down = MARGIN * (tile.x1 - tile.x0), MARGIN * (tile.y1 - tile.y0)
    inner = torch.tensor(
        [
            tile.x0 + across if tile.x0 > 0 else -math.inf,
            tile.y0 + down if tile.y0 > 0 else -math.inf,
            tile.x1 - across if tile.x1 < width else math.inf,
            tile.y1 - down if tile.y1 < height else math.inf,
        ]
    )
    keep = (boxes[:, :2] >= inner[:2]).all(1) & (boxes[:, 2:] <= inner[2:]).all(1)
    return Found(found.scores[keep], found.labels[keep], boxes[keep])


def merge(parts: Sequence[Found]) -> Found:
    """Detections of several views of one picture, each object once, best first: NMS class by class."""
    scores, labels, boxes = (torch.cat(rows) for rows in zip(*parts, strict=True))
    keep = batched_nms(boxes, scores, labels, MERGE_IOU)
    return Found(scores[keep], labels[keep], boxes[keep])


def predict_sliced(
    predictor: Predictor,
    image: Image.Image,
    name: str,
    threshold: float,
    batch_size: int,
    slice_px: int,
    overlap: float,
) -> Found:
    """Detect in a picture as a whole and in its tiles, `batch_size` of these views at a time.

    A picture that is no larger than a tile is looked at once, as it is without slicing.
    """
    size_hw = (image.height, image.width)
    views = tiles(size_hw, slice_px, overlap)
    if len(views) == 1:
        return predictor.predict([image], [name], threshold)[0]
    views.insert(0, Tile(0, 0, image.width, image.height))
    found: list[Found] = []
    for start in range(0, len(views), batch_size):
        batch = views[start : start + batch_size]
        seen = predictor.predict([image.crop(view) for view in batch], [name] * len(batch), threshold)
        found += [uncut(one, view, size_hw) for one, view in zip(seen, batch, strict=True)]
    return merge(found)
