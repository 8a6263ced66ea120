"""COCO's JSON, read and checked.

Legend: M pictures, N objects of the whole file.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..structures import ClassNames
from .packed import PackedAnnotations

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 5
Entry = dict[str, Any]


def read_annotations(
    path: Path, classes: ClassNames | None = None, *, drop_empty_boxes: bool = False
) -> PackedAnnotations:
    """Read and check a COCO annotation file.

    Category ids may have gaps: labels are numbered by ascending id. Boxes are clipped to their picture.

    Args:
        path: The JSON file.
        classes: Number the labels as these (those of the training set); None takes the file's own categories.
        drop_empty_boxes: Leave boxes without any extent out, with a warning, instead of refusing the file.

    Raises:
        ValueError: Anything that is wrong with the file, with its place and the remedy.
    """
    document = _read_json(path)
    categories = _read_classes(document, path)
    images = _read_images(document, path)
    image_ids = [image["id"] for image in images]
    sizes_hw = np.array([(i["height"], i["width"]) for i in images], dtype=np.int64).reshape(-1, 2)
    names = [str(image["file_name"]).encode("utf-8", "surrogatepass") for image in images]
    annotations, position = _read_objects(document, path, image_ids, categories)
    boxes, kept, dropped = _clip(annotations, position, sizes_hw, path)
    if dropped and not drop_empty_boxes:
        raise ValueError(
            f"{dropped}; correct the JSON, or add -u train_dataloader.dataset.drop_empty_boxes=True"
        )
    if dropped:
        logger.warning("%s; they are left out", dropped)
    order = kept[np.argsort(position[kept], kind="stable")]
    label_of = {category_id: k for k, category_id in enumerate(categories.ids)}
    labels = np.array([label_of[a["category_id"]] for a in annotations], dtype=np.int64)
    packed = PackedAnnotations(
        image_ids=torch.tensor(image_ids, dtype=torch.int64),
        sizes_hw=torch.from_numpy(sizes_hw),
        name_bytes=torch.from_numpy(np.frombuffer(b"".join(names), dtype=np.uint8).copy()),
        name_ends=_ends(np.array([len(name) for name in names])),
        boxes_xyxy_px=torch.from_numpy(boxes[order]),
        labels=torch.from_numpy(labels[order]),
        ends=_ends(np.bincount(position[kept], minlength=len(images))),
        classes=categories,
        dropped=dropped,
    )
    return packed if classes is None else follow_classes(packed, classes, path)


def follow_classes(packed: PackedAnnotations, classes: ClassNames, path: Path) -> PackedAnnotations:
    """The same objects with their labels numbered as `classes`, those of the training set.

    Raises:
        ValueError: The file `path`, which they come from, has other categories.
    """
    _check_same_classes(packed.classes, classes, path)
    label_of = {category_id: k for k, category_id in enumerate(classes.ids)}
    labels = torch.tensor([label_of[category_id] for category_id in packed.classes.ids])[packed.labels]
    return packed._replace(labels=labels, classes=classes)


def _ends(counts: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def examples(items: Sequence[object]) -> str:
    """The first few items, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:MAX_EXAMPLES])
    return shown if len(items) <= MAX_EXAMPLES else f"{shown} and {len(items) - MAX_EXAMPLES} more"


def _read_json(path: Path) -> Entry:
    if not path.is_file():
        raise ValueError(f"annotation file {path} does not exist; correct ann_file, or prepare the dataset")
    try:
        document = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"annotation file {path} is not valid JSON ({error}): it is truncated or of another format; "
            "copy or download it again"
        ) from error
    if not isinstance(document, dict):
        raise ValueError(
            f"annotation file {path} holds a JSON {type(document).__name__}, not COCO's object; "
            "give the 'instances' file, not a results file"
        )
    lists = ("images", "annotations", "categories")
    missing = [key for key in lists if not isinstance(document.get(key), list)]
    if missing:
        raise ValueError(
            f"annotation file {path} has no list {', '.join(map(repr, missing))}: COCO's detection format "
            "needs 'images', 'annotations' and 'categories'; add what is missing (a list may be empty, "
            "'categories' not)"
        )
    return document


def _read_classes(document: Entry, path: Path) -> ClassNames:
    categories = document["categories"]
    broken = [c for c in categories if not (isinstance(c, dict) and _is_int(c.get("id")) and c.get("name"))]
    if broken or not categories:
        raise ValueError(
            f"annotation file {path}: 'categories' must list at least one category, each with an integer "
            f"'id' and a 'name'; found {examples(broken) or 'none'}"
        )
    ordered = sorted(categories, key=lambda c: int(c["id"]))
    ids = tuple(int(c["id"]) for c in ordered)
    repeated = sorted({i for i, j in zip(ids, ids[1:], strict=False) if i == j})
    if repeated:
        raise ValueError(
            f"annotation file {path}: category ids {examples(repeated)} stand there more than once; "
            "give each category an id of its own"
        )
    return ClassNames(tuple(str(c["name"]) for c in ordered), ids)


def _check_same_classes(found: ClassNames, expected: ClassNames, path: Path) -> None:
    known = dict(zip(expected.ids, expected.names, strict=True))
    strangers = [f"{i} '{n}'" for i, n in zip(found.ids, found.names, strict=True) if known.get(i) != n]
    if strangers:
        raise ValueError(
            f"annotation file {path}: categories {examples(strangers)} are not those of the training set (or "
            f"checkpoint), which has {examples([f'{i} {n!r}' for i, n in known.items()])}; "
            "use the same ids and names in both files"
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_images(document: Entry, path: Path) -> list[Entry]:
    images: list[Entry] = document["images"]
    if not images:
        raise ValueError(f"annotation file {path} lists no picture; give a file with at least one")
    without_id = [
        f"images[{k}]" for k, i in enumerate(images) if not (isinstance(i, dict) and _is_int(i.get("id")))
    ]
    if without_id:
        raise ValueError(
            f"annotation file {path}: {examples(without_id)} have no integer 'id'; give each picture one"
        )
    unsized = [
        i["id"] for i in images if not all(_is_int(i.get(k)) and i[k] > 0 for k in ("width", "height"))
    ]
    if unsized:
        raise ValueError(
            f"annotation file {path}: pictures with id {examples(unsized)} have no 'width' and 'height' "
            "(positive whole pixels); write the size of each picture into the JSON"
        )
    twice = [image_id for image_id, count in Counter(i["id"] for i in images).items() if count > 1]
    if twice:
        raise ValueError(
            f"annotation file {path}: picture ids {examples(twice)} stand there more than once; "
            "give each picture an id of its own"
        )
    unsafe = [repr(i.get("file_name")) for i in images if not _is_inside(i.get("file_name"))]
    if unsafe:
        raise ValueError(
            f"annotation file {path}: file names {examples(unsafe)} are empty, absolute or lead out of the "
            "picture folder; write them relative to img_folder, without '..'"
        )
    return images


def _is_inside(name: object) -> bool:
    """Whether a file name, as written, stays in the folder that it is relative to."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    parts = PurePosixPath(name.replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts and not name[1:2] == ":"


def _place(annotation: Entry) -> str:
    return f"annotation {annotation.get('id', '(without id)')}"


def _read_objects(
    document: Entry, path: Path, image_ids: Sequence[int], categories: ClassNames
) -> tuple[list[Entry], np.ndarray[Any, Any]]:
    """The N annotations that are no crowds, and the index [N] of each one's picture."""
    annotations: list[Entry] = document["annotations"]
    _check_references(annotations, path, set(image_ids), categories)
    annotations = [a for a in annotations if not a.get("iscrowd", 0)]
    position = {image_id: k for k, image_id in enumerate(image_ids)}
    return annotations, np.array([position[a["image_id"]] for a in annotations], dtype=np.int64)


def _clip(
    annotations: list[Entry], position: np.ndarray[Any, Any], sizes_hw: np.ndarray[Any, Any], path: Path
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    """Boxes [N, 4] inside their pictures, which of them have an extent [n], and in words which have none."""
    boxes = _read_boxes(annotations, path)
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    clipped = np.clip(corners, 0, sizes_hw[position][:, [1, 0, 1, 0]]).astype(np.float32)
    has_extent = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    empty = [f"{_place(annotations[k])} {annotations[k]['bbox']}" for k in np.flatnonzero(~has_extent)]
    dropped = (
        f"annotation file {path}: {len(empty)} boxes are empty (no width or height, or outside their "
        f"picture): {examples(empty)}"
    )
    return clipped, np.flatnonzero(has_extent), dropped if empty else ""


def _check_references(
    annotations: list[Entry], path: Path, image_ids: set[int], categories: ClassNames
) -> None:
    """Every annotation must be an object that names a picture and a category of this file."""
    broken = [f"annotations[{k}]" for k, a in enumerate(annotations) if not isinstance(a, dict)]
    if broken:
        raise ValueError(f"annotation file {path}: {examples(broken)} are not JSON objects; delete them")
    lost = [
        f"{_place(a)} (image_id {a.get('image_id')})"
        for a in annotations
        if not (_is_int(a.get("image_id")) and a["image_id"] in image_ids)
    ]
    if lost:
        raise ValueError(
            f"annotation file {path}: {examples(lost)} belong to pictures that 'images' does not list; "
            "add these pictures or delete the annotations"
        )
    ids = set(categories.ids)
    unknown = [
        f"{_place(a)} (category_id {a.get('category_id')})"
        for a in annotations
        if not (_is_int(a.get("category_id")) and a["category_id"] in ids)
    ]
    if unknown:
        raise ValueError(
            f"annotation file {path}: {examples(unknown)} have a category that 'categories' does not list "
            f"(it has {examples(categories.ids)}); add the categories or correct the ids"
        )


def _read_boxes(annotations: list[Entry], path: Path) -> np.ndarray[Any, Any]:
    """Boxes [N, 4] as (left, top, width, height), finite."""
    broken = [_place(a) for a in annotations if not _is_box(a.get("bbox"))]
    if broken:
        raise ValueError(
            f"annotation file {path}: the 'bbox' of {examples(broken)} is not four finite numbers "
            "[left, top, width, height]; correct or delete these annotations"
        )
    return np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)


def _is_box(box: object) -> bool:
    # the range leaves out NaN and infinity, too
    return isinstance(box, list) and len(box) == 4 and all(_is_number(x) and -1e9 < x < 1e9 for x in box)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
