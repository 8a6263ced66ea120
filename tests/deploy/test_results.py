import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.deploy.predictor import Prediction, Predictor
from src.deploy.results import coco_records, image_ids, predict_folder
from src.structures import ClassNames, Detections

CLASSES = ClassNames(("cat", "dög"), (3, 90))


class OneBox:
    """Finds a dog in the left half of every picture, and hardly a cat."""

    classes = CLASSES
    input_hw = (32, 32)

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        count = len(images)
        height, width = sizes_hw.float().unbind(1)
        box = torch.stack((0 * width, 0 * height, width / 2, height), -1)
        labels = torch.tensor([[1, 0]]).repeat(count, 1)
        return Detections(labels, torch.stack((box, box), 1), torch.tensor([[0.75, 0.2]]).repeat(count, 1))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size_wh in (("000000000139.jpg", (60, 40)), ("7.png", (20, 30))):
        Image.new("RGB", size_wh, "white").save(folder / name)
    return folder


def test_folder_gives_pictures_and_coco_records(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    summary = predict_folder(Predictor(OneBox()), source, output)
    assert summary == (2, 2, output)
    assert sorted(os.listdir(output)) == ["000000000139.jpg", "7.png", "detections.json"]
    assert json.loads((output / "detections.json").read_text(encoding="utf-8")) == [
        {
            "image_id": 139,
            "file_name": "000000000139.jpg",
            "category_id": 90,
            "bbox": [0.0, 0.0, 30.0, 40.0],
            "score": 0.75,
        },
        {
            "image_id": 7,
            "file_name": "7.png",
            "category_id": 90,
            "bbox": [0.0, 0.0, 10.0, 30.0],
            "score": 0.75,
        },
    ]
    drawn = np.asarray(Image.open(output / "7.png"))
    assert drawn.shape == (30, 20, 3)
    assert (drawn != 255).any()


def test_threshold_reaches_the_records(source: Path, tmp_path: Path) -> None:
    predict_folder(Predictor(OneBox(), threshold=0.2), source / "7.png", tmp_path / "low")
    scores = [record["score"] for record in json.loads((tmp_path / "low" / "detections.json").read_text())]
    assert scores == [0.75, 0.2]
    summary = predict_folder(Predictor(OneBox(), threshold=0.9), source / "7.png", tmp_path / "high")
    assert summary.num_detections == 0
    assert json.loads((tmp_path / "high" / "detections.json").read_text()) == []


def test_a_broken_picture_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    (source / "8.jpg").write_bytes((source / "000000000139.jpg").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"8\.jpg"):
        predict_folder(Predictor(OneBox()), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "7.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"8\.jpg"):
        predict_folder(Predictor(OneBox()), source, tmp_path / "old")
    assert os.listdir(tmp_path / "old") == ["7.png"]
    assert (tmp_path / "old" / "7.png").read_bytes() == b"mine"


def test_results_never_replace_the_pictures(source: Path) -> None:
    before = (source / "7.png").read_bytes()
    for wanted in (source, source / "7.png"):
        with pytest.raises(ValueError, match="give another output folder"):
            predict_folder(Predictor(OneBox()), wanted, source)
    assert (source / "7.png").read_bytes() == before


def test_an_output_that_is_a_file_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ValueError, match="cannot make the output folder .*taken"):
        predict_folder(Predictor(OneBox()), source, tmp_path / "taken")


def test_a_picture_with_a_strange_suffix_is_written_as_png(source: Path, tmp_path: Path) -> None:
    (source / "7.png").rename(source / "photo.data")
    predict_folder(Predictor(OneBox()), source / "photo.data", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["detections.json", "photo.data.png"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["0012.jpg", "7.png"], [12, 7]),
        (["12.jpg", "cat.png"], [1, 2]),
        (["7.jpg", "07.png"], [1, 2]),
        (["²2.jpg", "1.jpg"], [1, 2]),
    ],
)
def test_image_ids(names: list[str], ids: list[int]) -> None:
    assert image_ids([Path(name) for name in names]) == ids


def test_records_of_no_detection() -> None:
    empty = Prediction(
        Path("x.jpg"),
        Image.new("RGB", (4, 4)),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 4),
        torch.zeros(0),
    )
    assert coco_records(empty, 1, CLASSES) == []
