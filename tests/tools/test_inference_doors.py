"""The real model through the real doors: export, both inference doors, and what they say to bad input."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lively import enliven
from PIL import Image

from src import assembly
from src.deploy import DeployModel, OnnxRuntime
from src.deploy.agreement import compare
from src.solver.checkpoint import save_checkpoint
from src.structures import Detections
from tests.exported import verify_onnx

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")

NAMES, IDS = ["ant", "bee", "cow", "dog", "elk", "fox"], [2, 3, 5, 7, 11, 13]
# A rectangle that is no multiple of 32 on either side, so that the exported graph pads.
INPUT_HW = (72, 104)
TINY = [
    f"eval_spatial_size=[{INPUT_HW[0]}, {INPUT_HW[1]}]",
    "DINOv3Backbone={embed_dim: 64, depth: 2, num_heads: 2, interaction_indexes: [0, 1]}",
    "DINOv3Backbone={out_channels: [32, 32, 32], detail_channels: 8}",
    "HybridEncoder={hidden_dim: 32, dim_feedforward: 64}",
    "DFINETransformer={hidden_dim: 32, dim_feedforward: 64, num_layers: 2, num_queries: 40}",
    "DFINEPostProcessor.num_top_queries=50",
]


class Lab(NamedTuple):
    """A trained-looking tiny detector on disk, exported by the door.

    Attributes:
        config: Its YAML.
        checkpoint: Its checkpoint; the ONNX file lies beside it.
        said: What the export door printed.
        reference: The same detector in PyTorch.
    """

    config: Path
    checkpoint: Path
    said: str
    reference: DeployModel

    @property
    def onnx(self) -> Path:
        return self.checkpoint.with_suffix(".onnx")


def call(repo_root: Path, door: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(repo_root / door), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=repo_root,
        timeout=300,
    )


@pytest.fixture(scope="module")
def lab(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
    torch.manual_seed(0)
    model, postprocessor, _, experiment = assembly.load_detector(config, None, TINY)
    assert experiment.eval_spatial_size == INPUT_HW
    enliven(model)
    checkpoint = folder / "best.pth"
    save_checkpoint(checkpoint, {"model": model.state_dict(), "classes": {"names": NAMES, "ids": IDS}})
    done = call(repo_root, "tools/deployment/export_onnx.py", "-c", config, "-r", checkpoint, "-u", *TINY)
    assert done.returncode == 0, done.stderr
    return Lab(config, checkpoint, done.stdout, DeployModel(model, postprocessor).eval())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three pictures of different sizes."""
    folder = tmp_path / "in"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size_hw in (("11.jpg", (60, 90)), ("12.png", (200, 120)), ("13.jpg", (72, 104))):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size_hw[::-1]).save(folder / name)
    return folder


def detections(folder: Path) -> list[dict[str, Any]]:
    found = json.loads((folder / "detections.json").read_text())
    assert isinstance(found, list)
    return found


def as_detections(records: list[dict[str, Any]], file_name: str) -> Detections:
    """The records of one picture, as a batch of one."""
    rows = [record for record in records if record["file_name"] == file_name]
    boxes = torch.tensor([record["bbox"] for record in rows], dtype=torch.float64)
    labels = torch.tensor([record["category_id"] for record in rows])
    return Detections(labels[None], boxes[None], torch.tensor([[record["score"] for record in rows]]))


def test_export_writes_file_and_report_beside_the_checkpoint(lab: Lab) -> None:
    assert sorted(os.listdir(lab.onnx.parent)) == ["best.onnx", "best.pth", "export.json"]
    assert f"{lab.onnx}: " in lab.said
    assert "agrees with PyTorch (" in lab.said
    report = json.loads((lab.onnx.parent / "export.json").read_text())["best.onnx"]
    assert report["verified"]["agreement"]["num_compared"] >= 135
    assert report["config"] == "dfine_dinov3_demo"


def test_graph_is_self_contained_with_native_layer_norm_and_no_grid_sample(lab: Lab) -> None:
    proto = onnx.load(lab.onnx, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    operators = {node.op_type for node in proto.graph.node}
    assert "LayerNormalization" in operators
    assert "GridSample" not in operators
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    assert [one.name for one in proto.graph.input] == ["images", "orig_target_sizes"]
    assert [one.name for one in proto.graph.output] == ["labels", "boxes", "scores"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(properties["class_names"]) == NAMES
    assert json.loads(properties["class_ids"]) == IDS
    assert json.loads(properties["input_size_hw"]) == list(INPUT_HW)


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_runtime_agrees_with_pytorch(lab: Lab, batch: int) -> None:
    agreement = verify_onnx(lab.onnx, lab.reference, batch=batch)
    assert agreement.num_compared >= 45 * batch
    assert agreement.max_score_diff <= 1e-4
    assert agreement.max_box_diff_px <= 0.05


def test_the_exported_weights_are_the_checkpoints(lab: Lab) -> None:
    torch.manual_seed(7)
    model, postprocessor, _, _ = assembly.load_detector(lab.config, None, TINY)
    enliven(model)
    with pytest.raises(ValueError, match="do not agree"):
        verify_onnx(lab.onnx, DeployModel(model, postprocessor).eval())


def test_both_inference_doors_give_the_same(lab: Lab, repo_root: Path, source: Path, tmp_path: Path) -> None:
    common: Sequence[object] = ("-i", source, "--threshold", 0.3)
    torch_door = call(
        repo_root, "tools/inference/torch_inf.py", "-c", lab.config, "-r", lab.checkpoint, *common,
        "-o", tmp_path / "torch", "-d", "cpu", "-u", *TINY,
    )  # fmt: skip
    onnx_door = call(
        repo_root,
        "tools/inference/onnx_inf.py",
        "-m",
        lab.onnx,
        *common,
        "-o",
        tmp_path / "onnx",
        "--threads",
        1,
    )
    assert torch_door.returncode == onnx_door.returncode == 0, torch_door.stderr + onnx_door.stderr
    ours, theirs = detections(tmp_path / "torch"), detections(tmp_path / "onnx")
    assert len(ours) == len(theirs) > 3
    assert torch_door.stdout == f"3 pictures, {len(ours)} detections: {tmp_path / 'torch'}\n"
    for name in ("11.jpg", "12.png", "13.jpg"):
        assert compare(as_detections(ours, name), as_detections(theirs, name)).num_ties <= 1
    assert {record["image_id"] for record in ours} <= {11, 12, 13}
    assert {record["category_id"] for record in ours} <= set(IDS)
    assert min(record["score"] for record in ours) >= 0.3
    for folder in ("torch", "onnx"):
        names = sorted(os.listdir(tmp_path / folder))
        assert names == ["11.jpg", "12.png", "13.jpg", "detections.json"]
        assert Image.open(tmp_path / folder / "12.png").size == (120, 200)


def run_here(
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    door: str,
    *arguments: object,
) -> tuple[int, str]:
    """Exit status and stderr of a door that is run in this process."""
    monkeypatch.setattr(sys, "argv", [door, *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(repo_root / door), run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


def test_bad_input_is_one_paragraph_and_status_2(
    lab: Lab,
    repo_root: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((source / "11.jpg").read_bytes()[:300])
    out = tmp_path / "out"
    torch_door: tuple[object, ...] = (
        "tools/inference/torch_inf.py",
        "-c",
        lab.config,
        "-o",
        out,
        "-d",
        "cpu",
    )
    onnx_door: tuple[object, ...] = ("tools/inference/onnx_inf.py", "-o", out)
    export: tuple[object, ...] = ("tools/deployment/export_onnx.py", "-c", lab.config, "-o", out / "x.onnx")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*onnx_door, "-m", lab.onnx, "-i", tmp_path / "absent"), "absent: no such picture or folder"),
        ((*onnx_door, "-m", tmp_path / "absent.onnx", "-i", source), "absent.onnx: no such file"),
        ((*onnx_door, "-m", broken, "-i", source), "cannot read this file"),
        ((*onnx_door, "-m", lab.onnx, "-i", broken), "broken.jpg"),
        ((*onnx_door, "-m", lab.onnx, "-i", source, "--threshold", 2), "threshold 2.0"),
        ((*torch_door, "-r", lab.checkpoint, "-i", broken, "-u", *TINY), "broken.jpg"),
        ((*torch_door, "-r", lab.checkpoint, "-i", source), "checkpoint of another model"),
        ((*torch_door, "-r", tmp_path / "absent.pth", "-i", source, "-u", *TINY), "absent.pth"),
        ((*export, "-r", lab.checkpoint, "--opset", 16, "-u", *TINY), "opset 16"),
        ((*export, "-r", broken, "-u", *TINY), "broken.jpg"),
    ]
    for (door, *arguments), message in cases:
        status, said = run_here(repo_root, monkeypatch, capsys, str(door), *arguments)
        assert status == 2, said
        # log lines may come first, as that of the weights that were taken
        assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
        assert message in said
        assert "Traceback" not in said
        assert not out.exists(), f"{message}: something was written"


def test_export_without_a_checkpoint_warns(
    lab: Lab,
    repo_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # the opset that is refused saves the time of a second export
    arguments = ("-c", lab.config, "-o", tmp_path / "x.onnx", "--opset", 16, "-u", *TINY)
    status, said = run_here(repo_root, monkeypatch, capsys, "tools/deployment/export_onnx.py", *arguments)
    assert (status, "opset 16" in said) == (2, True)
    assert "the exported weights are random" in caplog.text


@pytest.mark.slow
def test_a_fixed_batch_of_one(lab: Lab, repo_root: Path, tmp_path: Path) -> None:
    done = call(
        repo_root, "tools/deployment/export_onnx.py", "-c", lab.config, "-r", lab.checkpoint,
        "-o", tmp_path / "x.onnx", "--no-check", "--batch-size", 1, "--opset", 20, "-u", *TINY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not compared with PyTorch" in done.stdout
    assert OnnxRuntime(tmp_path / "x.onnx").batch == 1
    assert verify_onnx(tmp_path / "x.onnx", lab.reference, batch=3).num_compared >= 135


@pytest.mark.slow
def test_every_option_of_the_graph_at_once(lab: Lab, repo_root: Path, source: Path, tmp_path: Path) -> None:
    done = call(
        repo_root, "tools/deployment/export_onnx.py", "-c", lab.config, "-r", lab.checkpoint,
        "-o", tmp_path / "x.onnx", "--dynamic-size", "--sampling", "bilinear", "--simplify", "-u", *TINY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "onnxslim: " in done.stderr and "GridSample nodes, which TensorRT" in done.stderr
    assert "agrees with PyTorch (" in done.stdout
    assert json.loads((tmp_path / "export.json").read_text())["x.onnx"]["least_side"] <= min(INPUT_HW)
    arguments = ("-m", tmp_path / "x.onnx", "-i", source, "-o", tmp_path / "out", "--size", 77, 140)
    done = call(repo_root, "tools/inference/predict.py", *arguments, "--threshold", 0)
    assert done.returncode == 0, done.stderr
    assert {one["image_id"] for one in detections(tmp_path / "out")} == {11, 12, 13}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfine_dinov3_s_coco", "dfine_hgnetv2_n_coco"])
def test_a_coco_model_at_640(repo_root: Path, tmp_path: Path, name: str) -> None:
    config = repo_root / f"configs/dfine/{name}.yml"
    torch.manual_seed(0)
    model, postprocessor, _, _ = assembly.load_detector(config, None)
    enliven(model, 0.3)
    save_checkpoint(tmp_path / "best.pth", {"model": model.state_dict()})
    done = call(repo_root, "tools/deployment/export_onnx.py", "-c", config, "-r", tmp_path / "best.pth")
    assert done.returncode == 0, done.stderr
    assert "agrees with PyTorch (" in done.stdout
    operators = json.loads((tmp_path / "export.json").read_text())["best.onnx"]["operators"]
    assert "GridSample" not in operators
    assert operators["LayerNormalization"] >= 10
    reference = DeployModel(model, postprocessor).eval()
    assert verify_onnx(tmp_path / "best.onnx", reference, batch=1).num_compared >= 270
