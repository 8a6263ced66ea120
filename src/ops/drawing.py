"""Boxes with names and scores drawn on a picture."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GOLDEN_RATIO = 0.618033988749895
GAP = 4  # pixels between the pictures of a grid

Colour = tuple[int, int, int]


def class_colour(label: int) -> Colour:
    """The colour of a class: strong, the same in every picture, far from those of the classes near it."""
    hue = (0.03 + label * GOLDEN_RATIO) % 1.0  # the golden ratio spreads any number of hues evenly
    saturation = (0.85, 0.65, 1.0)[label // 12 % 3]
    value = (0.95, 0.75)[label // 36 % 2]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has the higher contrast on `background` (WCAG 2 relative luminance)."""
    linear = [(part / 255) ** 2.2 for part in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def to_pil(image: Tensor | Image.Image) -> Image.Image:
    """An RGB copy of a PIL picture or of a [3, H, W] uint8 RGB tensor.

    Raises:
        ValueError: A tensor of another shape or dtype.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB") if image.mode != "RGB" else image.copy()
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"a picture to draw on is uint8 [3, H, W], not {image.dtype} {list(image.shape)}")
    return Image.fromarray(np.ascontiguousarray(image.detach().cpu().permute(1, 2, 0).numpy()))


def draw_boxes(
    image: Tensor | Image.Image,
    boxes_xyxy_px: Tensor,
    labels: Tensor,
    scores: Tensor | None,
    names: Sequence[str],
    *,
    line_width: int | None = None,
    font_size: int | None = None,
) -> Image.Image:
    """A copy of the picture with a frame, a name and a score for each box, the best score on top.

    Args:
        image: PIL picture, or RGB tensor [3, H, W] uint8.
        boxes_xyxy_px: [N, 4] corners in pixels of `image`; what lies outside is cut off.
        labels: [N] contiguous class indices.
        scores: [N] in [0, 1], None for true objects.
        names: The classes' names, by index.
        line_width: Of the frames, in pixels; by the picture's size where it is not given.
        font_size: Of the text, in pixels; by the picture's size where it is not given.

    Raises:
        ValueError: The lengths differ, a label has no name, or the tensor is no picture.
    """
    picture = to_pil(image)
    boxes, classes = boxes_xyxy_px.detach().cpu().float(), labels.detach().cpu().tolist()
    certainty = None if scores is None else scores.detach().cpu().tolist()
    if len(boxes) != len(classes) or (certainty is not None and len(certainty) != len(boxes)):
        raise ValueError(
            f"{len(boxes)} boxes, {len(classes)} labels and scores must be as many as each other"
        )
    if classes and not 0 <= min(classes) <= max(classes) < len(names):
        raise ValueError(
            f"labels run from {min(classes)} to {max(classes)}, but {len(names)} names are given"
        )
    side = max(picture.size)
    line_width = max(1, round(side / 320)) if line_width is None else line_width
    font = ImageFont.load_default(max(10, round(side / 45)) if font_size is None else font_size)
    draw = ImageDraw.Draw(picture)
    order = range(len(boxes)) if certainty is None else np.argsort(certainty, kind="stable").tolist()
    for i in order:
        frame = _visible(boxes[i].tolist(), picture.size)
        if frame is None:
            continue
        colour = class_colour(classes[i])
        draw.rectangle(frame, outline=colour, width=line_width)
        text = names[classes[i]] if certainty is None else f"{names[classes[i]]} {certainty[i]:.2f}"
        _write(draw, text, frame, colour, font, picture.size)
    return picture


def grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures, at least one, row by row in cells of the largest one's size, about as many down as across."""
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = (max(picture.size[axis] for picture in pictures) + GAP for axis in (0, 1))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * width - GAP, rows * height - GAP), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet


def _visible(box: list[float], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The part of a box inside the picture, in whole pixels; None where there is none."""
    x0, y0, x1, y1 = box
    width, height = size
    if not (x0 < width and y0 < height and x1 > 0 and y1 > 0 and x1 >= x0 and y1 >= y0):  # NaN is outside
        return None
    left, top = min(round(max(x0, 0)), width - 1), min(round(max(y0, 0)), height - 1)
    return left, top, max(left, min(round(x1), width) - 1), max(top, min(round(y1), height) - 1)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    frame: tuple[int, int, int, int],
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A filled label at the frame's upper left: above it where there is room, else inside it."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = round(right - left) + 4, round(bottom - top) + 4
    x = max(0, min(frame[0], size[0] - width))
    y = frame[1] - height if frame[1] >= height else frame[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill=text_colour(colour), font=font)
