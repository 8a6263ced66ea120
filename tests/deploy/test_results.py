import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.deploy.results import Result
from src.structures import ClassNames

CLASSES = ClassNames(("cat", "dög"), (3, 90))


@pytest.fixture
def result() -> Result:
    return Result(
        torch.tensor([0.75, 0.5]),
        torch.tensor([1, 0]),
        torch.tensor([[0.0, 1.0, 30.0, 40.0], [2.5, 3.0, 4.0, 5.25]]),
        CLASSES,
        (50, 60),
        "a.png",
        picture=Image.new("RGB", (60, 50), "white"),
    )


def empty(**facts: object) -> Result:
    rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
    return Result(*rows, CLASSES, (4, 4), "x.jpg", **facts)


def test_is_a_mapping_of_three_keys(result: Result) -> None:
    assert list(result) == ["scores", "labels", "boxes"]
    assert {**result}.keys() == dict(result).keys() == {"scores", "labels", "boxes"}
    assert result["boxes"] is result.boxes and "names" not in result
    with pytest.raises(KeyError):
        result["names"]
    assert result in [result] and result not in [copy.copy(result)]
    assert repr(result) == "Result('a.png': 2 detections)"


def test_cocos_records_have_the_original_ids(result: Result) -> None:
    common = {"image_id": 139, "file_name": "a.png"}
    assert result.to_coco(139) == [
        {**common, "category_id": 90, "bbox": [0.0, 1.0, 30.0, 39.0], "score": 0.75},
        {**common, "category_id": 3, "bbox": [2.5, 3.0, 1.5, 2.25], "score": 0.5},
    ]
    assert empty().to_coco(1) == []


def test_drawing_leaves_the_picture_as_it_is(result: Result) -> None:
    drawn = np.asarray(result.plot())
    assert drawn.shape == (50, 60, 3)
    assert (drawn != 255).any()
    assert (np.asarray(result.picture) == 255).all()


def test_a_picture_that_was_given_away_is_read_again(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "x.jpg")
    assert empty(path=tmp_path / "x.jpg").plot().size == (4, 4)
    (tmp_path / "x.jpg").unlink()
    with pytest.raises(ValueError, match="does not exist"):
        empty(path=tmp_path / "x.jpg").plot()


def test_supervision_takes_it(result: Result) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install -r requirements-supervision.txt")
    found = result.to_supervision()
    np.testing.assert_array_equal(found.xyxy, result.boxes.numpy())
    np.testing.assert_array_equal(found.confidence, result.scores.numpy())
    assert found.class_id.tolist() == [1, 0]
    assert found.data["class_name"].tolist() == ["dög", "cat"]
    assert supervision.Detections.from_transformers(dict(result)) is not None
    assert len(empty().to_supervision()) == 0
