"""What was found in one picture, in the forms that people and other programs take it in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..data import decode_rgb
from ..ops.drawing import draw_boxes
from ..structures import ClassNames
from .extras import require

KEYS = ("scores", "labels", "boxes")


@dataclass(frozen=True, eq=False, repr=False)
class Result(Mapping[str, Tensor]):
    """What was found in one picture, best first: a mapping of "scores", "labels" and "boxes", too.

    Legend: K detections; `len(result)` counts the keys of the mapping, `len(result.scores)` is K.

    Attributes:
        scores: [K] in [0, 1], each at least the threshold.
        labels: [K] int64, contiguous class indices from 0.
        boxes: [K, 4] float32 corners (x0, y0, x1, y1) in pixels of the picture as stored.
        classes: Names and original ids of the classes, by label.
        size_hw: (height, width) of the picture as stored.
        name: The file's name, or "picture 3" for the third of those that came decoded.
        path: The picture's or the video's file, None where it came decoded.
        frame: Which frame of a video or camera it is, from 1 on; None for a picture.
        picture: The picture, RGB; None where `path` can give it again.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    classes: ClassNames
    size_hw: tuple[int, int]
    name: str
    path: Path | None = None
    frame: int | None = None
    picture: Image.Image | None = None

    def __getitem__(self, key: str) -> Tensor:
        if key not in KEYS:
            raise KeyError(key)
        value: Tensor = getattr(self, key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(KEYS)

    def __len__(self) -> int:
        return len(KEYS)

    __eq__ = object.__eq__  # a mapping's compares values, which tensors do not answer with one bool
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        frame = "" if self.frame is None else f", frame {self.frame}"
        return f"Result({self.name!r}{frame}: {len(self.scores)} detections)"

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self.classes.names

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO's results format, with the file's name and the classes' original ids.

        `bbox` is [x, y, width, height] in pixels of the picture as stored.
        """
        origin: dict[str, Any] = {"image_id": image_id, "file_name": self.name}
        if self.frame is not None:
            origin["frame"] = self.frame
        rows = zip(self.labels.tolist(), self.boxes.tolist(), self.scores.tolist(), strict=True)
        return [
            {
                **origin,
                "category_id": self.classes.ids[label],
                "bbox": [round(x0, 3), round(y0, 3), round(x1 - x0, 3), round(y1 - y0, 3)],
                "score": round(score, 6),
            }
            for label, (x0, y0, x1, y1), score in rows
        ]

    def to_supervision(self) -> Any:
        """A `supervision.Detections`, with the names in `data["class_name"]`.

        Raises:
            ValueError: The package is not installed.
        """
        labels = self.labels.numpy()
        return require("supervision").Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=labels,
            data={"class_name": np.array(self.names)[labels]},
        )

    def plot(self) -> Image.Image:
        """The picture with its boxes, class names and scores drawn.

        Raises:
            ValueError: The picture has to be read again, and cannot be.
        """
        picture = self.picture
        if picture is None:
            assert self.path is not None, "only a picture that has a file is given away"
            picture = decode_rgb(self.path)
        return draw_boxes(picture, self.boxes, self.labels, self.scores, self.names)
