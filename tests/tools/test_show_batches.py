import subprocess
import sys
from pathlib import Path

from PIL import Image

from src.data.synthetic import DemoSettings, write_demo_dataset

CONFIG = "configs/dfine/dfine_dinov3_demo.yml"


def call(repo_root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    door = str(repo_root / "tools" / "visualization" / "show_batches.py")
    return subprocess.run(
        [sys.executable, door, *arguments], capture_output=True, text=True, cwd=repo_root, check=False
    )


def test_a_grid_of_an_epochs_pictures(repo_root: Path, tmp_path: Path) -> None:
    write_demo_dataset(tmp_path / "data", DemoSettings(num_train=5, num_val=1, size=64))
    where = {"img_folder": "train", "ann_file": "annotations/instances_train.json"}
    dataset = [f"train_dataloader.dataset.{key}={tmp_path / 'data' / name}" for key, name in where.items()]
    out = tmp_path / "new" / "grid.png"
    mixed = "stages=[{start: 0, mosaic: 1.0}, {start: 2, mosaic: 0}]"
    arguments = ["-c", CONFIG, "--epoch", "1", "--num", "7", "--out", str(out), "-u", *dataset, mixed]
    result = call(repo_root, *arguments)  # seven of five pictures: two come twice
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}: 7 pictures of epoch 1, augmentation strong, mosaic 1\n"
    with Image.open(out) as grid:
        assert grid.format == "PNG" and grid.size == (3 * 324 - 4, 3 * 324 - 4)
