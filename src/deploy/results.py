"""What is left in a folder after a prediction: annotated pictures and one file in COCO's results format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from ..ops.drawing import draw_boxes
from ..structures import ClassNames
from .files import staged_folder
from .predictor import SUFFIXES, Prediction, Predictor, find_pictures

DETECTIONS_FILE = "detections.json"


class Summary(NamedTuple):
    """What was written.

    Attributes:
        num_pictures: Annotated pictures.
        num_detections: Records of the results file.
        output: The folder.
    """

    num_pictures: int
    num_detections: int
    output: Path


def predict_folder(predictor: Predictor, source: Path, output: Path) -> Summary:
    """Detect in a picture or in a folder's pictures; write each one annotated, and `detections.json`.

    Everything appears in `output` at the end, or nothing does.

    Args:
        predictor: Detects.
        source: A picture or a folder.
        output: Folder for the results, made where it is missing; files of the same names are replaced.

    Raises:
        ValueError: No picture is found, one cannot be read, or `output` is where the pictures are.
    """
    paths = find_pictures(source)
    if output.resolve() == paths[0].parent.resolve():
        raise ValueError(f"{output}: the results would replace the pictures; give another output folder")
    records: list[dict[str, Any]] = []
    with staged_folder(output) as folder:
        progress = tqdm(predictor.predict(paths), total=len(paths), unit="picture", disable=None)
        for prediction, image_id in zip(progress, image_ids(paths), strict=True):
            records += coco_records(prediction, image_id, predictor.classes)
            picture = annotate(prediction, predictor.classes)
            picture.save(folder / _picture_name(prediction.path), quality=95)
        (folder / DETECTIONS_FILE).write_text(_one_a_line(records), encoding="utf-8")
    return Summary(len(paths), len(records), output)


def image_ids(paths: Sequence[Path]) -> list[int]:
    """COCO's id of each picture: its name, if all names are numbers of their own, or else 1, 2, 3 ..."""
    stems = [path.stem for path in paths]
    if all(stem.isascii() and stem.isdecimal() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


def coco_records(prediction: Prediction, image_id: int, classes: ClassNames) -> list[dict[str, Any]]:
    """The detections of a picture in COCO's results format, with the file's name and the original class ids.

    `bbox` is [x, y, width, height] in pixels of the picture as stored.
    """
    rows = zip(
        prediction.labels.tolist(), prediction.boxes_xyxy_px.tolist(), prediction.scores.tolist(), strict=True
    )
    return [
        {
            "image_id": image_id,
            "file_name": prediction.path.name,
            "category_id": classes.ids[label],
            "bbox": [round(x0, 3), round(y0, 3), round(x1 - x0, 3), round(y1 - y0, 3)],
            "score": round(score, 6),
        }
        for label, (x0, y0, x1, y1), score in rows
    ]


def annotate(prediction: Prediction, classes: ClassNames) -> Image.Image:
    """The picture with its boxes, class names and scores drawn."""
    return draw_boxes(
        prediction.image, prediction.boxes_xyxy_px, prediction.labels, prediction.scores, classes.names
    )


def _picture_name(path: Path) -> str:
    """Name of the annotated picture: that of the file, with a suffix that can be written."""
    return path.name if path.suffix.lower() in SUFFIXES else f"{path.name}.png"


def _one_a_line(records: Sequence[dict[str, Any]]) -> str:
    """A JSON list with each record on its own line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    return f"[\n{lines}\n]\n" if records else "[]\n"
