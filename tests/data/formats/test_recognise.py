"""Which dataset a folder is taken for: COCO's layouts, Roboflow's, and folders that are none or several."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.data import count_classes
from src.data.formats import recognise

CATEGORIES = [
    {"id": 1, "name": "cat", "supercategory": "pets"},
    {"id": 2, "name": "dog", "supercategory": "pets"},
]
GROUP = {"id": 0, "name": "pets", "supercategory": "none"}


def put(path: Path, picture: Path, categories: list[dict[str, Any]] = CATEGORIES, category: int = 1) -> None:
    """A JSON of one picture, which lies in the folder `picture` as `a.png`."""
    picture.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(picture / "a.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": category, "bbox": [1, 1, 2, 2]}],
        "categories": categories,
    }
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("train_json", "val_json", "train_folder", "val_folder"),
    [
        (
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            "train2017",
            "val2017",
        ),
        ("annotations/instances_train.json", "annotations/instances_val.json", "images/train", "images/val"),
        ("annotations/instances_train.json", "annotations/instances_val.json", "images", "images"),
        ("annotations/train.json", "annotations/validation.json", "train", "valid"),
        ("train.json", "valid.json", "train/images", "valid/images"),
        ("train_annotations.json", "val.coco.json", ".", "."),
    ],
)
def test_layouts_of_coco(
    tmp_path: Path, train_json: str, val_json: str, train_folder: str, val_folder: str
) -> None:
    (tmp_path / "images").mkdir()
    put(tmp_path / train_json, tmp_path / train_folder)
    put(tmp_path / val_json, tmp_path / val_folder)
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text("{}")
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    layout = recognise(tmp_path)
    assert (layout.format, list(layout.readers)) == ("coco", ["train", "val"])
    assert layout.read("train").img_folder == tmp_path / train_folder
    assert layout.read("val").img_folder == tmp_path / val_folder
    assert layout.read("val").places == (f"{val_json}: annotations[0]",)


def test_one_json_without_splits(tmp_path: Path) -> None:
    put(tmp_path / "annotations" / "instances_default.json", tmp_path / "images" / "default")
    layout = recognise(tmp_path)
    assert list(layout.readers) == ["all"]
    assert layout.read("all").img_folder == tmp_path / "images" / "default"
    with pytest.raises(ValueError, match=r"no 'train' split, only all; .*tools/dataset/split\.py"):
        layout.read("train")


def test_a_json_named_itself(tmp_path: Path) -> None:
    put(tmp_path / "annotations" / "mine.json", tmp_path / "images")
    assert recognise(tmp_path / "annotations" / "mine.json").read("all").img_folder == tmp_path / "images"


def test_two_files_of_one_split(tmp_path: Path) -> None:
    put(tmp_path / "annotations" / "instances_train2014.json", tmp_path / "train2014")
    put(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017")
    with pytest.raises(
        ValueError, match=r"instances_train2014\.json and instances_train2017\.json.*ann_file"
    ):
        recognise(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", '"\\ud800'])
def test_a_json_that_cannot_be_read_is_a_fault_of_the_split(tmp_path: Path, text: str) -> None:
    put(tmp_path / "annotations" / "instances_train.json", tmp_path / "images")
    (tmp_path / "annotations" / "instances_train.json").write_text(text)
    source = recognise(tmp_path).read("train")
    assert [(f.place, f.kind) for f in source.faults] == [
        ("annotations/instances_train.json", "file-unreadable")
    ]
    assert source.document == {"images": [], "annotations": [], "categories": []}
    with pytest.raises(ValueError, match=r"instances_train\.json: (is not valid JSON|holds a JSON)"):
        count_classes(str(tmp_path))


def test_roboflows_group_is_no_class(tmp_path: Path) -> None:
    put(tmp_path / "train" / "_annotations.coco.json", tmp_path / "train", [GROUP, *CATEGORIES])
    put(tmp_path / "valid" / "_annotations.coco.json", tmp_path / "valid", [GROUP, *CATEGORIES])
    layout = recognise(tmp_path)
    assert (layout.format, list(layout.readers)) == ("roboflow", ["train", "val"])
    assert layout.categories() == CATEGORIES
    assert layout.read("val").img_folder == tmp_path / "valid"


@pytest.mark.parametrize(
    ("categories", "category"),
    [
        ([GROUP, *CATEGORIES], 0),  # it has objects
        ([GROUP], 1),
        ([{**GROUP, "supercategory": "pets"}, *CATEGORIES], 1),
        ([{**GROUP, "name": "animals"}, *CATEGORIES], 1),  # the others belong to another one
    ],
)
def test_a_category_0_of_another_kind_stays(
    tmp_path: Path, categories: list[dict[str, Any]], category: int
) -> None:
    put(tmp_path / "train" / "_annotations.coco.json", tmp_path / "train", categories, category)
    assert recognise(tmp_path).categories() == categories


def test_no_dataset_says_what_would_be_one_and_where_some_are(tmp_path: Path) -> None:
    put(tmp_path / "inner" / "train.json", tmp_path / "inner")
    with pytest.raises(ValueError, match=r"(?s)no dataset.*COCO:.*YOLO:.*VOC:.*datasets: inner"):
        recognise(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        recognise(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="no dataset"):
        recognise(tmp_path / "notes.txt")


def test_of_several_the_one_with_both_splits_is_taken_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    assert recognise(tmp_path).format == "yolo"
    assert not caplog.records
    put(tmp_path / "annotations" / "instances_val.json", tmp_path / "images")
    put(tmp_path / "annotations" / "instances_train.json", tmp_path / "images")
    assert recognise(tmp_path).format == "coco"
    assert recognise(tmp_path).format == "coco"
    assert caplog.text.count("could be read as yolo, too") == 1
