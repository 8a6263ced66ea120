"""`train.py` as users start it: its flags, and one clear message with status 2 for every fault of theirs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import train
from src import door

Config = Callable[..., Path]
Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """Runs train.py with these arguments; gives exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        capsys.readouterr()
        status = door.run(train.main)
        return status, *capsys.readouterr()

    return run


def damage(dataset: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the training annotations with a fault."""
    document = json.loads((dataset / "annotations" / "instances_train.json").read_text())
    change(document)
    path = folder / "damaged.json"
    path.write_text(json.dumps(document))
    return path


def without_size(document: dict[str, Any]) -> None:
    del document["images"][3]["width"]


def unknown_category(document: dict[str, Any]) -> None:
    document["annotations"][0]["category_id"] = 3


def box_of_no_size(document: dict[str, Any]) -> None:
    document["annotations"][2]["bbox"][2] = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_size, ["width"]),
        (unknown_category, ["category_id 3"]),
        (box_of_no_size, ["empty", "drop_empty_boxes"]),
    ],
)
def test_a_faulty_annotation_file(
    call: Door,
    tiny_config: Config,
    tiny_dataset: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    words: list[str],
) -> None:
    path = damage(tiny_dataset, tmp_path, change)
    status, _, err = call("-c", tiny_config(), "-u", f"train_dataloader.dataset.ann_file={path}")
    assert_one_message(status, err, [str(path), *words])
    assert not (tmp_path / "output").exists()


def test_boxes_of_no_size_can_be_left_out(
    call: Door, tiny_config: Config, tiny_dataset: Path, tmp_path: Path
) -> None:
    path = damage(tiny_dataset, tmp_path, box_of_no_size)
    overrides = [
        f"train_dataloader.dataset.ann_file={path}",
        "train_dataloader.dataset.drop_empty_boxes=True",
    ]
    status, _, err = call("-c", tiny_config(), "-u", "epochs=1", *overrides)
    assert status == 0
    assert "boxes are empty" in err and "left out" in err


def assert_one_message(status: int, err: str, words: list[str]) -> None:
    assert status == 2
    (message,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-u", "train_dataloader.dataset.img_folder=/nowhere"], ["/nowhere", "img_folder"]),
        (["-u", "val_dataloader.dataset.ann_file=/nowhere.json"], ["/nowhere.json"]),
        (["-u", "DFINETransformer.num_querys=10"], ["num_querys", "num_queries"]),
        (["-u", "num_classes=80"], ["6 categories", "num_classes=6"]),
        (["-d", "banana"], ["banana", "cuda"]),
        (["-r", "/nowhere.pth"], ["/nowhere.pth"]),
        (["-t", "/nowhere.pth"], ["/nowhere.pth"]),
        (["--test-only"], ["-r"]),
        (["--test-only", "-r", "auto"], ["-r auto", "no checkpoint in", "output"]),
        (["--output-dir", "/proc/nowhere"], ["/proc/nowhere", "--output-dir"]),
        (
            ["-u", "DINOv3Backbone.checkpoint_path=/nowhere.pth", "DINOv3Backbone.pretrained=True"],
            ["embed_dim"],
        ),
    ],
)
def test_a_fault_of_the_user_is_one_message(
    call: Door, tiny_config: Config, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    status, _, err = call("-c", tiny_config(), *arguments)
    assert_one_message(status, err, words)
    assert not (tmp_path / "output").exists()


def test_a_missing_config(call: Door, tmp_path: Path) -> None:
    status, _, err = call("-c", tmp_path / "nowhere.yml")
    assert_one_message(status, err, ["nowhere.yml", "does not exist"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_truncated_picture_stops_the_run_and_names_the_file(
    call: Door, tiny_config: Config, tiny_dataset: Path, tmp_path: Path, num_workers: int
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in (tiny_dataset / "train").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    broken = sorted(folder.iterdir())[0]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])  # its header is whole
    overrides = [
        f"train_dataloader.dataset.img_folder={folder}",
        f"train_dataloader.num_workers={num_workers}",
    ]
    status, _, err = call("-c", tiny_config(), "-u", *overrides)
    assert_one_message(status, err, [str(broken)])
    assert not (tmp_path / "output" / "last.pth").exists()


def test_missing_pretrained_weights_stop_the_run(call: Door, tiny_config: Config, tmp_path: Path) -> None:
    section = {"pretrained": True, "checkpoint_path": "/nowhere.pth", "out_channels": [32, 32, 32]}
    status, _, err = call("-c", tiny_config(DINOv3Backbone=section))
    assert_one_message(status, err, ["/nowhere.pth", "weights/README.md"])
    assert not (tmp_path / "output").exists()


def test_a_checkpoint_of_another_model(call: Door, tiny_config: Config, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"model": {"some.weight": torch.zeros(3)}}, path)
    for arguments in (["-r", path, "--test-only"], ["-r", path], ["-t", path]):
        status, _, err = call("-c", tiny_config(), *arguments)
        assert_one_message(status, err, [str(path)])
        assert not (tmp_path / "output").exists()


def test_print_config_prints_what_loads_again(call: Door, tiny_config: Config, tmp_path: Path) -> None:
    status, out, _ = call("-c", tiny_config(), "--print-config", "--seed", 7, "--output-dir", "20261121")
    assert status == 0
    again = tmp_path / "again.yml"
    again.write_text(out)
    assert call("-c", again, "--print-config")[1] == out
    assert "seed: 7" in out
    assert "20261121" in out


def test_train_then_resume_tune_and_test(call: Door, tiny_config: Config, tmp_path: Path) -> None:
    config, output = tiny_config(), tmp_path / "output"
    assert call("-c", config, "-u", "epochs=1", "--seed", 3)[0] == 0
    status, _, err = call("-c", config, "-r", output / "last.pth", "-u", "epochs=2")
    assert status == 0
    assert "epoch 1 of 2 is next" in err
    status, _, err = call(
        "-c", config, "-t", output / "last.pth", "--output-dir", tmp_path / "tuned", "-u", "epochs=1"
    )
    assert status == 0
    assert "fine-tuning from" in err
    status, out, _ = call("-c", config, "--test-only", "-r", output / "best.pth")
    assert status == 0
    assert "AP50" in out
    assert "circle" in out
    for name in ("best.pth", "last.pth"):
        assert call("-c", config, "--test-only", "-r", "auto")[0] == 0
        line = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
        assert line["checkpoint"] == str(output / name)
        (output / name).unlink()


def test_pictures_of_any_mode_train(
    call: Door, tiny_config: Config, tiny_dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, path in enumerate(sorted((tiny_dataset / "train").iterdir())):
        Image.open(path).convert(("L", "CMYK", "RGB")[i % 3]).save(folder / path.name)
    overrides = [f"train_dataloader.dataset.img_folder={folder}", "epochs=1"]
    assert call("-c", tiny_config(), "-u", *overrides)[0] == 0
