"""What an exported file says of itself, so that it can be used without this project."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from ..structures import ClassNames

FORMAT_VERSION = "1"
INPUTS = ("images", "orig_target_sizes")
OUTPUTS = ("labels", "boxes", "scores")
PADDED = "pad right or bottom with 0 to the shape of input_size_hw; "
STRETCHED = "stretch to input_size_hw, bilinear, antialiased"


class ModelCard(NamedTuple):
    """The facts that the consumer of an exported detector needs.

    Attributes:
        classes: Names and original ids, by the index that the output `labels` gives.
        input_hw: (height, width) of the input `images`.
        config: Name of the config that the model was built from.
        keep_ratio: Whether pictures are padded to the input's shape, right or at the bottom, before they are
            resized to it.
        least_side: Least height and width of `images` where any are taken, None where `input_hw` alone is.
    """

    classes: ClassNames
    input_hw: tuple[int, int]
    config: str
    keep_ratio: bool = False
    least_side: int | None = None


def to_properties(card: ModelCard) -> dict[str, str]:
    """The card as ONNX `metadata_props`; values that are not plain text are JSON.

    `scale`, `mean` and `std` are what the CALLER applies to 8-bit RGB: value = (pixel * scale - mean) / std.
    The graph holds the backbone's own normalisation, so the mean is 0 and the std 1.
    """
    state = "padded" if card.keep_ratio else "stored"
    dynamic = {} if card.least_side is None else {"least_side": str(card.least_side)}
    return {
        "format_version": FORMAT_VERSION,
        "producer": "D-FINE",
        "config": card.config,
        "class_names": json.dumps(card.classes.names, ensure_ascii=False),
        "class_ids": json.dumps(card.classes.ids),
        "input_size_hw": json.dumps(card.input_hw),
        "channel_order": "RGB",
        "resize": f"{PADDED if card.keep_ratio else ''}{STRETCHED}",
        "scale": repr(1 / 255),
        "mean": "[0.0, 0.0, 0.0]",
        "std": "[1.0, 1.0, 1.0]",
        "orig_target_sizes": f"(width, height) of each picture as {state}, int64",
        "boxes": "x0, y0, x1, y1 in pixels of orig_target_sizes",
        **dynamic,
    }


def from_properties(properties: Mapping[str, str], source: str) -> ModelCard:
    """The card that `to_properties` wrote.

    Args:
        properties: The file's `metadata_props`.
        source: The file's name, for the message.

    Raises:
        ValueError: The properties are missing or not what `to_properties` writes.
    """
    remedy = "export it with tools/deployment/export_onnx.py"
    version = properties.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{source}: its metadata has format_version {version!r}, expected {FORMAT_VERSION!r}, so its "
            f"classes and input size are unknown; {remedy}"
        )
    try:
        names = tuple(str(name) for name in json.loads(properties["class_names"]))
        ids = tuple(int(i) for i in json.loads(properties["class_ids"]))
        height, width = (int(side) for side in json.loads(properties["input_size_hw"]))
        least_side = int(properties["least_side"]) if "least_side" in properties else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: its metadata cannot be read ({error!r}); {remedy}") from error
    if len(names) != len(ids) or min(height, width) < 1:
        raise ValueError(
            f"{source}: its metadata has {len(names)} class names, {len(ids)} class ids and input size "
            f"{height}x{width}, which do not fit together; {remedy}"
        )
    keep_ratio = properties.get("resize", "").startswith(PADDED)
    config = properties.get("config", "")
    return ModelCard(ClassNames(names, ids), (height, width), config, keep_ratio, least_side)


def chosen_size(card: ModelCard, input_hw: tuple[int, int] | None, source: str) -> tuple[int, int]:
    """The (height, width) that was asked for, or the file's own where that is None.

    Args:
        card: What the file says.
        input_hw: What was asked for.
        source: The file's name, for the message.

    Raises:
        ValueError: The file does not take it.
    """
    if input_hw is None or input_hw == card.input_hw:
        return card.input_hw
    size = f"pictures of {input_hw[0]}x{input_hw[1]} (height x width) were asked for"
    if card.least_side is None:
        height, width = card.input_hw
        raise ValueError(
            f"{source}: takes pictures of {height}x{width} alone, but {size}; for other sizes export it with "
            "tools/deployment/export_onnx.py --dynamic-size"
        )
    if min(input_hw) < card.least_side:
        raise ValueError(f"{source}: takes pictures from {card.least_side}x{card.least_side} on, but {size}")
    return input_hw
