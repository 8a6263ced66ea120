"""How often a start reads annotations: once, and not at all where an earlier one has kept what it read."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from four_formats import WRITERS, make_splits, write_config
from ranks import on_ranks

from src import assembly, runs
from src.data import annotation_cache
from src.data.formats import voc, yolo
from src.solver.checkpoint import save_checkpoint
from src.solver.evaluate import Evaluation
from src.solver.trainer import Trainer

CPU = torch.device("cpu")
ONCE = {"train": 1, "val": 1}


class Stopped(Exception):
    """What comes after the start is left out."""


def start(config: Path, *overrides: str) -> None:
    """All of a training run but its steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda _: None)
        runs.train(assembly.load(config, overrides), CPU)


def start_test(config: Path, *overrides: str) -> None:
    """All of an evaluation but its pictures."""

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    experiment = assembly.load(config, overrides)
    checkpoint = config.with_suffix(".pth")
    save_checkpoint(checkpoint, {"model": assembly.build_model(experiment).state_dict()})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Evaluation, "__call__", stop)
        runs.test(experiment, CPU, checkpoint=str(checkpoint))


def count_parses(patch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each part's COCO JSON is parsed from now on."""
    counts: Counter[str] = Counter()
    loads = json.loads

    def counted(text: str | bytes, *args: Any, **options: Any) -> Any:
        found = loads(text, *args, **options)
        if isinstance(found, dict) and "annotations" in found:
            counts[found["images"][0]["file_name"].replace("_", " ").split()[0]] += 1
        return found

    patch.setattr(json, "loads", counted)
    return counts


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_parses(monkeypatch)


@pytest.fixture
def config(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_config(tmp_path, repo_root, batch=2)


def write(name: str, folder: Path) -> Path:
    return WRITERS[name](folder / name, make_splits(folder / "pictures"), folder / "pictures")


def given(way: str, data: Path) -> list[str]:
    """The overrides that name a dataset of COCO's layout."""
    if way == "data":
        return [f"data={data}"]
    return ["num_classes=3"] + [
        f"{split}_dataloader.dataset.{key}={data / path}"
        for split in ("train", "val")
        for key, path in (("img_folder", split), ("ann_file", f"annotations/instances_{split}.json"))
    ]


@pytest.mark.parametrize("way", ["data", "paths"])
def test_what_a_first_start_read_of_coco_no_later_one_reads(
    config: Path, tmp_path: Path, parses: Counter[str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    own = [*given(way, write("coco", tmp_path)), f"output_dir={tmp_path / 'out'}"]
    start(config, *own)
    assert parses == ONCE
    start(config, *own)
    start_test(config, *own)
    assert parses == ONCE


@pytest.mark.parametrize("way", ["data", "paths"])
def test_an_evaluation_reads_its_own_part_alone_and_once(
    config: Path, tmp_path: Path, parses: Counter[str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    own = [*given(way, write("coco", tmp_path)), f"output_dir={tmp_path / 'out'}"]
    for _ in range(2):
        start_test(config, *own)
        assert parses == {"val": 1}
    start(config, *own)  # which has to examine both
    assert parses == {"train": 1, "val": 2}


def test_small_files_are_read_once_at_each_start(config: Path, tmp_path: Path, parses: Counter[str]) -> None:
    own = [*given("data", write("coco", tmp_path)), f"output_dir={tmp_path / 'out'}"]
    start(config, *own)
    assert parses == ONCE
    start_test(config, *own)
    assert parses == {"train": 1, "val": 2}


@pytest.mark.parametrize(
    ("name", "module", "reader"), [("yolo", yolo, "read_lines"), ("voc", voc, "read_voc")]
)
def test_files_of_other_formats_are_read_once_at_a_start(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: Any, reader: str
) -> None:
    experiment = assembly.load(config, [f"data={write(name, tmp_path)}", f"output_dir={tmp_path / 'out'}"])
    counts: Counter[Path] = Counter()
    read = getattr(module, reader)

    def counted(path: Path) -> Any:
        counts[path] += 1
        return read(path)

    monkeypatch.setattr(module, reader, counted)
    monkeypatch.setattr(Trainer, "fit", lambda _: None)
    runs.train(experiment, CPU)
    assert len(counts) >= 5 and set(counts.values()) == {1}


def _start_on(rank: int, config: Path, own: list[str]) -> dict[str, int]:  # noqa: ARG001 (`on_ranks` gives it)
    patch = pytest.MonkeyPatch()
    patch.setattr(annotation_cache, "SMALLEST", 0)
    counts = count_parses(patch)
    start(config, *own)
    return dict(counts)


@pytest.mark.dist
def test_of_two_ranks_one_reads(config: Path, tmp_path: Path) -> None:
    own = [*given("data", write("coco", tmp_path)), f"output_dir={tmp_path / 'out'}"]
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    assert on_ranks(_start_on, 2, tmp_path / "first", config, own) == [ONCE, {}]
    assert on_ranks(_start_on, 2, tmp_path / "second", config, own) == [{}, {}]
