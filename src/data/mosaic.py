"""Four pictures in one: DEIM's Mosaic (dense one-to-one matching, arXiv 2412.04234)."""

from collections.abc import Sequence

import torch

from .affine import RandomAffine
from .partners import Stored, resized
from .picture import Picture
from .transforms import Sample


def mosaic(pictures: Sequence[Stored], tile: int, affine: RandomAffine) -> Sample:
    """Lay four pictures around a cross, then turn, scale and shift them together.

    Each keeps its ratio of sides and touches the cross with a corner; what is left of the canvas is black.
    Boxes are those of `affine`: around what is seen, none of which less than a tenth is seen.

    Args:
        pictures: At the upper left, upper right, lower left and lower right.
        tile: Longer side of each, in pixels.
        affine: Draws from torch's global generator.

    Returns:
        The canvas, with the objects of all four.
    """
    tiles = [resized(picture, tile / max(picture.pixels.shape[:2])) for picture in pictures]
    (h0, w0), (h1, w1), (h2, w2), (h3, w3) = (tile.pixels.shape[:2] for tile in tiles)
    row, column = max(h0, h1), max(w0, w2)
    canvas = torch.zeros(row + max(h2, h3), column + max(w1, w3), 3, dtype=torch.uint8)
    corners = ((row - h0, column - w0), (row - h1, column), (row, column - w2), (row, column))
    boxes, labels = [], []
    for (pixels, target), (top, left) in zip(tiles, corners, strict=True):
        h, w = pixels.shape[:2]
        canvas[top : top + h, left : left + w] = pixels
        boxes.append(target.boxes_xyxy_px + torch.tensor((left, top, left, top)))
        labels.append(target.labels)
    return affine(Sample(Picture.of(canvas), torch.cat(boxes).numpy(), torch.cat(labels).numpy()))
