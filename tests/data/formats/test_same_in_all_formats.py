"""One dataset in four formats: the same targets, and from one seed the same losses."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from four_formats import WRITERS, Splits, make_splits, read_splits, write_config, write_yolo

import train
from src import assembly, distributed, door
from src.data import CocoDetection, build_pipeline, read_annotations
from src.data.formats import recognise
from src.solver.checkpoint import save_checkpoint
from src.solver.evaluate import Evaluation
from src.solver.precision import choose_precision

Door = Callable[..., tuple[int, str]]


class Copies(NamedTuple):
    splits: Splits
    pictures: Path
    folders: dict[str, Path]


@pytest.fixture(scope="session", params=["made", "bccd_tiny"])
def copies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "made":
        pictures = folder / "pictures"
        splits = make_splits(pictures)
    else:
        shared: Path = request.getfixturevalue("shared")
        if not (shared / "data" / "bccd_tiny").is_dir():
            pytest.skip("shared/data/bccd_tiny is absent: real pictures are not part of the repository")
        splits, pictures = (
            read_splits(shared / "data" / "bccd_tiny"),
            shared / "data" / "bccd_tiny" / "images",
        )
    folders = {name: write(folder / name, splits, pictures) for name, write in WRITERS.items()}
    return Copies(splits, pictures, folders)


def dataset(folder: Path, split: str) -> CocoDetection:
    source = recognise(folder).read(split)
    assert source.faults == ()
    annotations = read_annotations(source.path, source)
    pipeline = build_pipeline([], (), (64, 64))
    return CocoDetection(source.img_folder, source.path, pipeline, annotations=annotations)


@pytest.mark.parametrize("name", WRITERS)
def test_the_format_is_recognised_with_its_classes(copies: Copies, name: str) -> None:
    layout = recognise(copies.folders[name])
    assert layout.format == name
    assert set(layout.readers) == {"train", "val"}
    assert [c["name"] for c in layout.categories()] == [
        c["name"] for c in copies.splits["train"]["categories"]
    ]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "coco"])
def test_pictures_and_targets_are_those_of_coco(copies: Copies, name: str, split: str) -> None:
    ours, cocos = dataset(copies.folders[name], split), dataset(copies.folders["coco"], split)
    assert len(ours) == len(cocos) == len(copies.splits[split]["images"])
    assert ours.classes.names == cocos.classes.names
    for index in range(len(cocos)):
        (image, target), (expected_image, expected) = ours.load(index), cocos.load(index)
        assert image.tobytes() == expected_image.tobytes()
        assert torch.equal(target.boxes_xyxy_px, expected.boxes_xyxy_px)  # bit for bit
        assert torch.equal(target.labels, expected.labels)
        assert target.size_hw == expected.size_hw


def test_six_digits_move_a_box_by_less_than_a_hundredth_of_a_pixel(copies: Copies, tmp_path: Path) -> None:
    cocos = dataset(copies.folders["coco"], "train")
    ours = dataset(write_yolo(tmp_path, copies.splits, copies.pictures, digits=6), "train")
    moved = ours.annotations.boxes_xyxy_px - cocos.annotations.boxes_xyxy_px
    assert 0 < moved.abs().max() < 0.01


@pytest.fixture
def config(copies: Copies, tmp_path: Path, repo_root: Path) -> Path:
    return write_config(tmp_path, repo_root, batch=len(copies.splits["train"]["images"]) // 2)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """Runs train.py with these arguments; gives exit status and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        return door.run(train.main), capsys.readouterr().err

    return run


def losses(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if "loss" in k} for line in lines if line["kind"] == "train"]


def test_the_door_trains_on_each_with_the_same_losses(
    copies: Copies, config: Path, tmp_path: Path, call: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt  # before what costs most, the report

    monkeypatch.setattr(Evaluation, "__call__", stop)
    found = {}
    for name, folder in copies.folders.items():
        output = tmp_path / name
        assert call("-c", config, "-u", f"data={folder}", "--output-dir", output)[0] == 130
        found[name] = losses(output)
    assert len(found["coco"]) == 2
    assert all(math.isfinite(value) for line in found["coco"] for value in line.values())
    assert found["roboflow"] == found["yolo"] == found["voc"] == found["coco"]


def test_the_evaluation_knows_the_same_objects(copies: Copies, config: Path) -> None:
    found = {}
    for name, folder in copies.folders.items():
        experiment = assembly.load(config, [f"data={folder}"])
        distributed.seed_everything(0)
        model = assembly.build_model(experiment)
        evaluation = assembly.build_evaluation(experiment, torch.device("cpu"), model)
        metrics, _ = evaluation(
            model.eval(), choose_precision(torch.device("cpu"), use_amp=False, dtype="auto")
        )
        assert evaluation.evaluator.scored is not None
        truth = evaluation.evaluator.scored.truth
        found[name] = [metrics.numbers(), *(part.tolist() for part in truth[1:]), evaluation.classes.names]
    assert sum(found["coco"][4]) > 0  # areas
    assert found["roboflow"] == found["yolo"] == found["voc"] == found["coco"]


def test_the_resolved_config_loads_again_to_the_same(copies: Copies, config: Path, tmp_path: Path) -> None:
    for folder in copies.folders.values():
        experiment = assembly.load(config, [f"data={folder}"])
        assert experiment.num_classes == 3
        assert experiment.train_dataloader.dataset.ann_file is None  # the demo's own give way
        (tmp_path / "config.yml").write_text(assembly.dump(experiment))
        assert assembly.load(tmp_path / "config.yml") == experiment


@pytest.mark.parametrize("copies", ["made"], indirect=True)
def test_every_config_for_ones_own_pictures_takes_the_dataset(copies: Copies, repo_root: Path) -> None:
    for path in sorted((repo_root / "configs" / "dfine" / "custom").glob("*.yml")):
        assert assembly.load(path, [f"data={copies.folders['yolo']}"]).num_classes == 3


@pytest.mark.parametrize("copies", ["made"], indirect=True)
def test_the_door_evaluates_a_checkpoint(copies: Copies, config: Path, tmp_path: Path, call: Door) -> None:
    folder = copies.folders["yolo"]
    model = assembly.build_model(assembly.load(config, [f"data={folder}"]))
    save_checkpoint(tmp_path / "best.pth", {"model": model.state_dict()})
    arguments = (
        "-u",
        f"data={folder}",
        "--output-dir",
        tmp_path / "out",
        "--test-only",
        "-r",
        tmp_path / "best.pth",
    )
    assert call("-c", config, *arguments)[0] == 0
    scored = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert [row["name"] for row in scored["classes"]] == [
        c["name"] for c in copies.splits["val"]["categories"]
    ]


@pytest.mark.parametrize("copies", ["made"], indirect=True)
def test_what_stops_a_run_before_it_begins(copies: Copies, config: Path, tmp_path: Path, call: Door) -> None:
    folder = tmp_path / "yolo"
    shutil.copytree(copies.folders["yolo"], folder)
    run = ("-c", config, "--output-dir", tmp_path / "out", "-u", f"data={folder}")
    status, error = call(*run, "num_classes=4")
    assert (status, "has 3 categories, but num_classes is 4" in error) == (2, True)
    label = next((folder / "train" / "labels").iterdir())
    label.write_text("0 0.5 0.5 0.5 0.5\n0 0.5\n")
    status, error = call(*run)
    assert (status, f"train/labels/{label.name}:2" in error) == (2, True)
    (folder / "data.yaml").write_text("train: train/images\nnames: [a, b, c]\n")
    status, error = call(*run)
    assert (status, "no 'val' split" in error, "tools/dataset/split.py" in error) == (2, True, True)
    assert not (tmp_path / "out").exists()
