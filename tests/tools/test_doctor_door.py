"""`tools/dataset/doctor.py` as users start it: what it says of each format, and its exit status."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src import door

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the door with these arguments; gives exit status, stdout, stderr."""
    main = runpy.run_path(str(repo_root / "tools" / "dataset" / "doctor.py"), run_name="door")["main"]

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["doctor.py", *map(str, arguments)])
        try:
            status = door.run(main)
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seed = sum(name.encode())
        cells = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((60, 40), Image.Resampling.NEAREST).save(folder / name)


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A JSON with one box, and its pictures in a folder of another name."""
    pictures(tmp_path / "photos", "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(document))
    return path, document


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    folder = tmp_path / "yolo"
    for split in ("train", "val"):
        pictures(folder / "images" / split, f"{split}1.png", f"{split}2.png")
        labels = folder / "labels" / split
        labels.mkdir(parents=True)
        for k in (1, 2):
            (labels / f"{split}{k}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.3 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return folder


def test_clean_data_ends_with_status_0(call: Call, coco: tuple[Path, dict[str, Any]]) -> None:
    path, _ = coco
    status, out, _ = call(path, "--img-folder", path.parent / "photos")
    assert status == 0
    assert out.splitlines() == [f"all: {path}: 1 pictures, 1 boxes, 1 classes", "no finding"]


def test_an_error_ends_with_status_1_and_a_warning_does_not(
    call: Call, coco: tuple[Path, dict[str, Any]]
) -> None:
    path, document = coco
    document["annotations"][0]["id"] = 0
    path.write_text(json.dumps(document))
    status, out, _ = call(path, "--img-folder", path.parent / "photos")
    assert status == 0 and "warning   annotation-id-zero  1      all  annotation 0" in out
    document["annotations"][0]["bbox"] = [5, 5, 0, 20]
    path.write_text(json.dumps(document))
    status, out, _ = call(path, "--img-folder", path.parent / "photos")
    assert status == 1 and "annotation 0 [5, 5, 0, 20]" in out and "drop_empty_boxes" in out


def test_json_says_all_that_the_table_says(call: Call, coco: tuple[Path, dict[str, Any]]) -> None:
    path, document = coco
    document["annotations"] += [{**document["annotations"][0], "id": k, "image_id": 7} for k in range(2, 10)]
    path.write_text(json.dumps(document))
    status, out, _ = call(path, "--img-folder", path.parent / "photos", "--json")
    said = json.loads(out)
    (finding,) = said["findings"]
    assert status == 1 and said["ok"] is False
    assert finding["code"] == "annotation-picture-unknown" and finding["severity"] == "error"
    assert finding["count"] == 8 and len(finding["examples"]) == 5
    assert finding["examples"][0] == "annotation 2 (image_id 7)"
    assert finding["where"] == str(path) and finding["meaning"] and finding["remedy"]
    assert said["sets"] == [{"name": "all", "file": str(path), "pictures": 1, "boxes": 1, "classes": 1}]


def test_pictures_are_decoded_unless_told_otherwise(call: Call, coco: tuple[Path, dict[str, Any]]) -> None:
    path, _ = coco
    picture = path.parent / "photos" / "a.png"
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 255
    picture.write_bytes(content)
    status, out, _ = call(path, "--img-folder", path.parent / "photos")
    assert status == 1 and "picture-truncated" in out and str(picture) in out
    assert call(path, "--img-folder", path.parent / "photos", "--no-decode")[0] == 0


def test_a_folder_that_is_not_there_is_a_finding(call: Call, coco: tuple[Path, dict[str, Any]]) -> None:
    path, _ = coco
    status, out, _ = call(path, "--img-folder", path.parent / "nowhere")
    assert status == 1 and "folder-missing" in out


@pytest.mark.parametrize("arguments", [["/nowhere"], [], ["--jsn", "."], [".", "--img-folder", "."]])
def test_a_wrong_command_line_ends_with_status_2(call: Call, arguments: list[str]) -> None:
    status, out, err = call(*arguments)
    assert status == 2 and not out and "error: " in err and "Traceback" not in err


def test_a_yolo_folder_is_examined_with_file_and_line(call: Call, yolo: Path) -> None:
    assert call(yolo)[0] == 0
    (yolo / "labels" / "train" / "train1.txt").write_text(
        "0 0.5 0.5 0.4 0.4\n1 0.3 0.3 0.2\n7 0.5 0.5 0.1 0.1\n"
    )
    (yolo / "labels" / "val" / "val2.txt").write_text(
        "0 0.5 0.5 0.4 0.4\n1 0.5 0.5 0.4 0.4\n1 0.5 0.5 0.4 0.4\n"
    )
    status, out, _ = call(yolo / "data.yaml", "--json")
    found = {finding["code"]: finding for finding in json.loads(out)["findings"]}
    assert status == 1
    assert set(found) == {"line-malformed", "class-unknown", "box-duplicated"}
    assert "labels/train/train1.txt:2" in found["line-malformed"]["examples"][0]
    assert "labels/train/train1.txt:3" in found["class-unknown"]["examples"][0]
    assert "labels/val/val2.txt:3" in found["box-duplicated"]["examples"][0]
    assert found["box-duplicated"]["severity"] == "repaired"
    rows = [
        line.split()[1:4] for line in call(yolo)[1].splitlines() if line.startswith(("error ", "repaired "))
    ]
    assert sorted(rows) == [
        ["box-duplicated", "1", "val"],
        ["class-unknown", "1", "train"],
        ["line-malformed", "1", "train"],
    ]


def test_a_test_set_may_be_without_labels(call: Call, yolo: Path) -> None:
    pictures(yolo / "images" / "test", "test1.png", "test2.png")
    with (yolo / "data.yaml").open("a") as file:
        file.write("test: images/test\n")
    (yolo / "labels" / "test").mkdir()
    (yolo / "labels" / "test" / "test1.txt").write_text("")
    status, out, _ = call(yolo)
    assert status == 0 and "no finding" in out
    for path in (yolo / "labels" / "train").iterdir():
        path.write_text("")
    status, out, _ = call(yolo)
    assert status == 1 and out.count("error     no-training-boxes  1      train") == 1


def test_yolo_boxes_of_pictures_that_exif_turns_need_no_warning(call: Call, yolo: Path) -> None:
    picture = yolo / "images" / "train" / "train1.png"
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(picture) as image:
            image.convert("RGB").save(picture, "JPEG", exif=exif)
        status, out, _ = call(yolo, "--json")
        codes = [finding["code"] for finding in json.loads(out)["findings"]]
        assert status == 0 and "picture-exif-ignored" not in codes


def test_a_dataset_without_validation_says_what_makes_one(call: Call, yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    status, out, _ = call(yolo)
    assert status == 1 and "split-missing" in out and "tools/dataset/split.py" in out
