import json
from pathlib import Path

import numpy as np
import pytest

from src.deploy.export.calibration import Calibration, calibration_pictures
from src.deploy.predictor import prepare
from src.deploy.sources import find_pictures, read
from src.ops.padding import framed


class Shape:
    """What of a runtime decides how pictures are prepared."""

    def __init__(self, batch: int | None = None, *, keep_ratio: bool = False) -> None:
        self.input_hw = (64, 96)
        self.batch = batch
        self.keep_ratio = keep_ratio


@pytest.mark.parametrize("keep_ratio", [False, True])
def test_pictures_are_prepared_as_for_evaluation(photographs: Path, keep_ratio: bool) -> None:
    files = find_pictures(photographs)[:2]
    calibration = Calibration(files, Shape(keep_ratio=keep_ratio))  # type: ignore[arg-type]
    for frame, size_wh in zip(read(list(files)), ((60, 48), (60, 47)), strict=True):
        feed = calibration.get_next()
        assert feed is not None
        images, _ = prepare([frame.image], (64, 96), keep_ratio=keep_ratio)
        np.testing.assert_array_equal(feed["images"], images.numpy())
        size_hw = framed(size_wh[::-1], (64, 96)) if keep_ratio else size_wh[::-1]
        assert feed["orig_target_sizes"].tolist() == [list(size_hw[::-1])]
    assert calibration.get_next() is None


def test_a_fixed_batch_is_filled_and_ranges_can_be_asked_for(photographs: Path) -> None:
    calibration = Calibration(find_pictures(photographs), Shape(batch=3))  # type: ignore[arg-type]
    assert len(calibration) == 5
    calibration.set_range(4, 5)
    feed = calibration.get_next()
    assert feed is not None and calibration.get_next() is None
    assert feed["images"].shape == (3, 3, 64, 96)
    assert feed["orig_target_sizes"].tolist() == [[60, 44]] * 3
    assert feed["orig_target_sizes"].dtype == np.int64


def test_pictures_are_spread_over_all(photographs: Path, tmp_path: Path) -> None:
    assert [file.name for file in calibration_pictures([], photographs, 2)] == ["0.png", "2.png"]
    assert len(calibration_pictures([], photographs, 128)) == 5
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 48 - i} for i in (1, 3)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    (tmp_path / "some.json").write_text(json.dumps(document))
    named = calibration_pictures([photographs, tmp_path / "some.json"], None, 9)
    assert named == [photographs / "1.png", photographs / "3.png"]


def test_what_is_missing_is_told(photographs: Path) -> None:
    with pytest.raises(ValueError, match="name a folder of them with --pictures"):
        calibration_pictures([], None, 8)
    with pytest.raises(ValueError, match="0 pictures were asked for, allowed is 1 or more"):
        calibration_pictures([], photographs, 0)
