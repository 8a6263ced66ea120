import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.deploy.detector import Detector
from src.deploy.saving import image_ids, save_results
from src.structures import ClassNames, Detections

CLASSES = ClassNames(("cat", "dög"), (3, 90))


class OneBox:
    """Finds a dog in the left half of every picture, and hardly a cat."""

    classes = CLASSES
    input_hw = (32, 32)
    keep_ratio = False

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        count = len(images)
        height, width = sizes_hw.float().unbind(1)
        box = torch.stack((0 * width, 0 * height, width / 2, height), -1)
        labels = torch.tensor([[1, 0]]).repeat(count, 1)
        return Detections(labels, torch.stack((box, box), 1), torch.tensor([[0.75, 0.2]]).repeat(count, 1))


@pytest.fixture
def detector() -> Detector:
    return Detector(OneBox())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size_wh in (("000000000139.jpg", (60, 40)), ("7.png", (20, 30))):
        Image.new("RGB", size_wh, "white").save(folder / name)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pytest.importorskip("cv2", reason="pip install -r requirements-video.txt")
    from src.deploy.video import VideoWriter

    path = tmp_path / "clips" / "clip.avi"
    path.parent.mkdir()
    with VideoWriter(path, 12.0) as writer:
        for level in range(5):
            writer.add(Image.new("RGB", (64, 48), (50 * level,) * 3))
    return path


def test_folder_gives_pictures_and_coco_records(detector: Detector, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    assert save_results(detector, str(source), output) == (2, 2, output)
    assert sorted(os.listdir(output)) == ["000000000139.jpg", "7.png", "detections.json"]
    common = {"category_id": 90, "score": 0.75}
    assert json.loads((output / "detections.json").read_text(encoding="utf-8")) == [
        {"image_id": 139, "file_name": "000000000139.jpg", "bbox": [0.0, 0.0, 30.0, 40.0], **common},
        {"image_id": 7, "file_name": "7.png", "bbox": [0.0, 0.0, 10.0, 30.0], **common},
    ]
    drawn = np.asarray(Image.open(output / "7.png"))
    assert drawn.shape == (30, 20, 3)
    assert (drawn != 255).any()


def test_a_table_alone(detector: Detector, source: Path, tmp_path: Path) -> None:
    save_results(detector, f"{source}/*", tmp_path / "out", kinds=["csv"])
    assert os.listdir(tmp_path / "out") == ["detections.csv"]
    with (tmp_path / "out" / "detections.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        "image_id file_name frame category_id class_name score x0 y0 x1 y1".split(),
        ["139", "000000000139.jpg", "", "90", "dög", "0.75", "0.0", "0.0", "30.0", "40.0"],
        ["7", "7.png", "", "90", "dög", "0.75", "0.0", "0.0", "10.0", "30.0"],
    ]


def test_threshold_reaches_the_records(detector: Detector, source: Path, tmp_path: Path) -> None:
    save_results(detector, str(source / "7.png"), tmp_path / "low", threshold=0.2)
    scores = [record["score"] for record in json.loads((tmp_path / "low" / "detections.json").read_text())]
    assert scores == [0.75, 0.2]
    summary = save_results(detector, str(source / "7.png"), tmp_path / "high", threshold=0.9)
    assert summary.num_detections == 0
    assert (tmp_path / "high" / "detections.json").read_text() == "[]\n"


def test_a_broken_picture_leaves_nothing_behind(detector: Detector, source: Path, tmp_path: Path) -> None:
    (source / "8.jpg").write_bytes((source / "000000000139.jpg").read_bytes()[:300])
    kinds = ["pictures", "coco", "csv"]
    with pytest.raises(ValueError, match=r"8\.jpg"):
        save_results(detector, str(source), tmp_path / "out", kinds=kinds)
    assert not (tmp_path / "out").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "7.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"8\.jpg"):
        save_results(detector, str(source), tmp_path / "old", kinds=kinds)
    assert os.listdir(tmp_path / "old") == ["7.png"]
    assert (tmp_path / "old" / "7.png").read_bytes() == b"mine"


def test_results_never_replace_the_pictures(detector: Detector, source: Path) -> None:
    before = (source / "7.png").read_bytes()
    for wanted in (source, source / "7.png", f"{source}/*.png"):
        with pytest.raises(ValueError, match="give another output folder"):
            save_results(detector, str(wanted), source)
    assert (source / "7.png").read_bytes() == before


def test_an_output_that_is_a_file_is_named(detector: Detector, source: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ValueError, match="cannot make the output folder .*taken"):
        save_results(detector, str(source), tmp_path / "taken")


def test_a_picture_with_a_strange_suffix_is_written_as_png(
    detector: Detector, source: Path, tmp_path: Path
) -> None:
    (source / "7.png").rename(source / "photo.data")
    save_results(detector, str(source / "photo.data"), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["detections.json", "photo.data.png"]


def test_files_of_one_name_are_not_written_over_each_other(
    detector: Detector, source: Path, tmp_path: Path
) -> None:
    (source / "deeper").mkdir()
    Image.new("RGB", (4, 4)).save(source / "deeper" / "7.png")
    with pytest.raises(ValueError, match=r"2 files are called 7\.png"):
        save_results(detector, f"{source}/**/*.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"kinds": ["pictures", "xml"]}, "saving xml was asked for, allowed are pictures, video, coco, csv"),
        ({"kinds": ["video"]}, "a video was asked for, but pictures came"),
        ({"max_frames": 0}, "0 frames"),
        ({"threshold": 2.0}, "threshold 2.0"),
        ({"slice_px": 0}, "slices of 0 pixels"),
    ],
)
def test_what_cannot_be_saved_is_told(
    detector: Detector, source: Path, tmp_path: Path, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_results(detector, str(source), tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_a_camera_needs_an_end(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a camera has no end"):
        save_results(detector, "0", tmp_path / "out")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_video_gives_a_video_and_records(
    detector: Detector, clip: Path, tmp_path: Path, batch_size: int
) -> None:
    from src.deploy.video import read_frames, video_facts

    output = tmp_path / "out"
    kinds = ["video", "coco", "pictures"]
    assert save_results(detector, str(clip), output, batch_size=batch_size, kinds=kinds)[:2] == (5, 5)
    frames = [f"clip_{number:06d}.jpg" for number in range(1, 6)]
    assert sorted(os.listdir(output)) == ["clip.mp4", *frames, "detections.json"]
    assert video_facts(output / "clip.mp4") == (12.0, 5)
    drawn = [np.asarray(frame).astype(int) for frame in read_frames(output / "clip.mp4")]
    assert [abs(int(frame[40, 60, 0]) - 50 * level) < 12 for level, frame in enumerate(drawn)] == [True] * 5
    records = json.loads((output / "detections.json").read_text())
    assert [(one["image_id"], one["file_name"], one["frame"]) for one in records] == [
        (number, "clip.avi", number) for number in range(1, 6)
    ]
    assert records[0]["bbox"] == [0.0, 0.0, 32.0, 48.0]


def test_a_video_stops_after_so_many_frames(detector: Detector, clip: Path, tmp_path: Path) -> None:
    assert save_results(detector, str(clip), tmp_path / "out", max_frames=2).num_pictures == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["clip.mp4", "detections.json"]


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
