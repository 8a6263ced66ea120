"""`train.py` on faulty data: the table, status 2 and nothing left behind; repairs are told and trained on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from src import door

Config = Callable[..., Path]


def damaged(dataset: Path, folder: Path, split: str, change: Callable[[dict[str, Any]], None]) -> Path:
    document = json.loads((dataset / "annotations" / f"instances_{split}.json").read_text())
    change(document)
    path = folder / f"damaged_{split}.json"
    path.write_text(json.dumps(document))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    return door.run(train.main)


def test_faults_of_both_sets_stop_a_run_with_one_table(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_config: Config,
    tiny_dataset: Path,
    tmp_path: Path,
) -> None:
    def twice(document: dict[str, Any]) -> None:
        document["categories"].append(document["categories"][0])

    def without_boxes(document: dict[str, Any]) -> None:
        document["annotations"] = []

    faulty = [
        f"train_dataloader.dataset.ann_file={damaged(tiny_dataset, tmp_path, 'train', twice)}",
        f"val_dataloader.dataset.ann_file={damaged(tiny_dataset, tmp_path, 'val', without_boxes)}",
    ]
    assert run(monkeypatch, "-c", tiny_config(), "-u", *faulty) == 2
    err = capsys.readouterr().err
    rows = [line.split()[:3] for line in err.splitlines() if line.startswith("error ")]
    assert rows == [["error", "category-id-repeated", "1"], ["error", "no-validation-boxes", "1"]]
    assert "Traceback" not in err and not (tmp_path / "output").exists()


def test_repairs_are_told_in_the_log_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Config, tiny_dataset: Path, tmp_path: Path
) -> None:
    def swapped(document: dict[str, Any]) -> None:
        for annotation in document["annotations"]:
            left, top, w, h = annotation["bbox"]
            annotation["bbox"] = [left + w, top + h, -w, -h]

    results = []
    for name in ("clean", "repaired"):
        overrides = [f"output_dir={tmp_path / name}", "epochs=1"]
        for split in ("train", "val") if name == "repaired" else ():
            path = damaged(tiny_dataset, tmp_path, split, swapped)
            overrides.append(f"{split}_dataloader.dataset.ann_file={path}")
        assert run(monkeypatch, "-c", tiny_config(), "-u", *overrides) == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        kept = [{k: v for k, v in json.loads(line).items() if not _is_time(k)} for line in lines]
        results.append(kept)
    assert results[0] == results[1]
    log = (tmp_path / "repaired" / "log.txt").read_text()
    assert "box-swapped" in log and "box-swapped" not in (tmp_path / "clean" / "log.txt").read_text()


@pytest.mark.dist
def test_the_main_rank_alone_examines_and_tells(
    tiny_config: Config, tiny_dataset: Path, tmp_path: Path, repo_root: Path
) -> None:
    def twice(document: dict[str, Any]) -> None:
        document["categories"].append(document["categories"][0])

    faulty = f"train_dataloader.dataset.ann_file={damaged(tiny_dataset, tmp_path, 'train', twice)}"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, "train.py", "-c", tiny_config(), "-u", faulty],
        cwd=repo_root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode != 0 and not (tmp_path / "output").exists()
    assert done.stderr.count("\nerror     category-id-repeated") == 1
    assert done.stderr.count("rank 0: error: ") == 1 and "rank 1: error: " not in done.stderr
    assert "Root Cause" not in done.stderr or "rank      : 0" in done.stderr.split("Root Cause")[1]


def _is_time(key: str) -> bool:
    return any(word in key for word in ("time", "second", "per_s", "memory", "images"))
