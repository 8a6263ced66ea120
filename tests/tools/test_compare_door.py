import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from src import assembly
from src.data.synthetic import DemoSettings, write_demo_dataset
from src.solver.checkpoint import save_checkpoint

SIZE = ("--size", 64, 96)


def call(repo_root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repo_root / "tools" / "benchmark" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=repo_root, check=False, timeout=900)


@pytest.fixture
def configs(repo_root: Path, tmp_path: Path) -> list[Path]:
    """Two tiny models with a decoder of one and of two layers."""
    paths = [tmp_path / "one.yml", tmp_path / "two.yml"]
    for num_layers, path in enumerate(paths, start=1):
        content = {
            "__include__": [str(repo_root / "configs/dfine/dfine_dinov3_demo.yml")],
            "output_dir": str(tmp_path / "output"),
            "DINOv3Backbone": {
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "interaction_indexes": [0, 1],
                "out_channels": [32, 32, 32],
                "detail_channels": 8,
            },
            "HybridEncoder": {"hidden_dim": 32, "dim_feedforward": 64},
            "DFINETransformer": {
                "hidden_dim": 32,
                "dim_feedforward": 64,
                "num_layers": num_layers,
                "num_queries": 20,
            },
        }
        path.write_text(yaml.safe_dump(content))
    return paths


def test_one_table_from_one_run(repo_root: Path, tmp_path: Path, configs: list[Path]) -> None:
    dataset = tmp_path / "dataset"
    write_demo_dataset(dataset, DemoSettings(num_train=1, num_val=6, size=64, seed=3))
    checkpoints = [path.with_suffix(".pth") for path in configs]
    for config, checkpoint in zip(configs, checkpoints, strict=True):
        torch.manual_seed(0)
        save_checkpoint(checkpoint, {"model": assembly.build_model(assembly.load(config)).state_dict()})
    data = (dataset / "val", dataset / "annotations" / "instances_val.json")
    done = call(
        repo_root, *configs, "-r", *checkpoints, "--data", *data, "-d", "cpu", *SIZE, "--repeats", 2,
        "--threads", 1, "--json", tmp_path / "numbers" / "x.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    machine, about, _, head, _, *rows = done.stdout.splitlines()
    assert "1 thread," in machine and f"torch {torch.__version__}" in machine
    assert "median of 2 rounds" in about
    assert head.split()[-2:] == ["AP", "AP50"]
    assert [row.split()[:2] for row in rows] == [["one", "64x96"], ["two", "64x96"]]
    one, two = json.loads((tmp_path / "numbers" / "x.json").read_text())["models"]
    assert one["parameters"]["train"]["total"] < two["parameters"]["train"]["total"]
    assert one["gflops"]["with_attention_products"] < two["gflops"]["with_attention_products"]
    for model, checkpoint in zip((one, two), checkpoints, strict=True):
        assert model["checkpoint"] == str(checkpoint)
        assert 0 <= model["metrics"]["AP"] <= model["metrics"]["AP50"] <= 1
        (speed,) = model["speeds"]
        assert speed["runtime"] == "PyTorch, CPU" and speed["batch_1_ms"]["calls"] == 2
        assert speed["batch_8_pictures_per_second"] > 0
    assert not (tmp_path / "output").exists(), "a comparison writes no run"


def test_faults_end_with_status_2(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", "one.yml", "two.yml", "-r", "absent.pth", "-d", "cpu"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(repo_root / "tools" / "benchmark" / "compare.py"), run_name="__main__")
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == ""
    assert said.err.startswith("error: 1 checkpoints came for 2 configs")


@pytest.mark.slow
def test_onnx_runtime_beside_pytorch(repo_root: Path, configs: list[Path]) -> None:
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    done = call(repo_root, *configs, "-d", "cpu", *SIZE, "--repeats", 1, "--onnx")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "ONNX Runtime" in lines[0] and not lines[3].endswith("AP50")
    runtimes = [[row.split()[0], "ONNX" in row] for row in lines[5:]]
    assert runtimes == [["one", False], ["one", True], ["two", False], ["two", True]]
