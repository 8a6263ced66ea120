"""The door that saves a teacher's features: what it takes, what it writes, and what it says to a fault."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.nn.backbone.vit import ViTShape, build_vit
from src.teachers import DinoV3Teacher, FeatureStore, dinov3_teacher

ROOT = Path(__file__).resolve().parents[2]
DOOR = ROOT / "tools" / "extract_features.py"
SHAPE = ViTShape(embed_dim=24, depth=2, num_heads=2, layer_scale=0.5)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three pictures and the YAML of a teacher, whose ViT is small here."""
    monkeypatch.setattr(dinov3_teacher, "build_vit", lambda name, _: build_vit(name, SHAPE))
    torch.save(DinoV3Teacher().vit.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "teacher.yaml").write_text(
        f"model_type: vit_small\ncheckpoint_path: {tmp_path / 'weights.pth'}\ndevice: cpu\n"
        f"feature_output_dir: {tmp_path / 'features'}\n"
    )
    write_pictures(tmp_path / "images")
    return tmp_path


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(draw.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def call(monkeypatch: pytest.MonkeyPatch, lab: Path, *arguments: object) -> int:
    given = ["-c", lab / "teacher.yaml", "--img-folder", lab / "images", "--size", 32, 48, *arguments]
    monkeypatch.setattr(sys, "argv", [str(DOOR), *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(DOOR), run_name="__main__")
    return int(ended.value.code or 0)


def test_every_flag_does_something(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, lab) == 0
    assert "3 pictures (0 of them done before), cls_token and patch_tokens" in capsys.readouterr().out
    store = FeatureStore.open(lab / "features")
    assert (store.kind.size_hw, store.kind.grid_hw, store.kind.dtype) == ((32, 48), (2, 3), "float16")
    assert store.read(["0.png", "2.png"])["patch_tokens"].shape == (2, 6, 24)
    assert call(monkeypatch, lab) == 0
    assert "3 pictures (3 of them done before)" in capsys.readouterr().out

    flags = ("--dtype", "bfloat16", "--cls-only", "--batch-size", 2, "--num-threads", 1)
    assert call(monkeypatch, lab, "-o", lab / "other", *flags, "-u", "extract_cls_token=False") == 0
    other = FeatureStore.open(lab / "other")
    assert other.kind.feature_dims == {"cls_token": 24}
    assert other.read(["1.png"])["cls_token"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", 48, 32], "size_hw (32, 48), not (48, 32)"),
        (["--cls-only"], "feature_dims"),
        (["--dtype", "bfloat16"], "dtype float16, not bfloat16"),
    ],
)
def test_a_folder_of_other_features_is_refused(
    lab: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    said: str,
) -> None:
    assert call(monkeypatch, lab) == 0
    assert call(monkeypatch, lab, *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_another_model_is_refused(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, lab) == 0
    torch.save(DinoV3Teacher().vit.state_dict(), lab / "weights.pth")
    assert call(monkeypatch, lab) == 2
    assert "model_hash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-u", "model_type=vit_tiny"], "model_type must be vit_small | vit_base | vit_large | vit_giant2"),
        (["-u", "checkpoint=x"], "unknown key checkpoint"),
        (["-u", "checkpoint_path=nowhere.pth"], "there is no file nowhere.pth"),
        (["-u", "feature_output_dir=null"], "give -o FOLDER, or feature_output_dir"),
        (["--ann-file", "nowhere.json"], "annotation file nowhere.json"),
        (["--batch-size", 0], "batch size 0"),
        (["-d", "tpu"], "'tpu' is not known"),
    ],
)
def test_faults_are_told_and_nothing_is_written(
    lab: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    said: str,
) -> None:
    assert call(monkeypatch, lab, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (lab / "features").exists()


@pytest.mark.dist
def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    torch.save(DinoV3Teacher().vit.state_dict(), tmp_path / "weights.pth")
    write_pictures(tmp_path / "images")
    contents = []
    for launcher in ((), ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")):
        folder = tmp_path / f"features{len(contents)}"
        command = [sys.executable, *launcher, DOOR, "--img-folder", tmp_path / "images", "-o", folder]
        command += ["--size", 32, 48, "--batch-size", 1, "-d", "cpu"]
        command += ["-u", "model_type=vit_small", f"checkpoint_path={tmp_path / 'weights.pth'}"]
        done = subprocess.run(
            list(map(str, command)),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("3 pictures (0 of them done before)") == 1
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
