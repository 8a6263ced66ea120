"""A published checkpoint through every door, and out again with tools/checkpoint.py."""

import importlib.util
import json
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from src import assembly, door
from src.nn.state_dict import from_upstream
from src.solver.checkpoint import read_checkpoint, save_checkpoint
from src.solver.published_classes import COCO, OBJECTS365

CONFIG = Path("configs/dfine/dfine_hgnetv2_n_coco.yml")
COMPUTED = ("decoder.anchors", "decoder.valid_mask")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def published(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as upstream publishes it, of N, with other weights in the average than in the model."""
    spec = importlib.util.spec_from_file_location("parity_fill", shared / "parity" / "fill.py")
    assert spec is not None and spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    shapes = json.loads((shared / "parity" / "dfine_hgnetv2_n_keys.json").read_text())
    numbers = {"up": 0.5, "reg_scale": 4.0}
    state = {
        name: torch.full(shape, numbers.get(name.rsplit(".", 1)[-1], 0.0)) for name, shape in shapes.items()
    }
    average = fill.fill_state_dict(state)
    model = {name: t.clone() if name in COMPUTED else t * 1.0 for name, t in average.items()}
    model["decoder.enc_score_head.bias"] += 1
    path = tmp_path_factory.mktemp("published") / "dfine_n_coco.pth"
    torch.save({"date": "2024-10-01", "last_epoch": 147, "model": model, "ema": {"module": average}}, path)
    return path


@pytest.fixture
def call(repo_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs a door in this process; gives exit status, stdout and stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(repo_root)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        main = runpy.run_path(str(repo_root / name), run_name="door")["main"]
        capfd.readouterr()
        status = door.run(main)
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A dataset of two pictures and three of COCO's categories."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (1, 2)]
    for image in images:
        Image.new("RGB", (60, 40), (90, 40 * int(str(image["id"])), 20)).save(
            folder / str(image["file_name"])
        )
    boxes = [
        {"id": i, "image_id": i, "category_id": 90, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        for i in (1, 2)
    ]
    categories = [{"id": i, "name": n} for i, n in ((1, "person"), (13, "stop sign"), (90, "toothbrush"))]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def on(pictures: Path, output: Path) -> list[str]:
    """Overrides that put N on these pictures, at a small size."""
    overrides = [f"output_dir={output}", "eval_spatial_size=[64, 64]", "use_amp=False"]
    for loader in ("train_dataloader", "val_dataloader"):
        overrides += [
            f"{loader}.dataset.img_folder={pictures}",
            f"{loader}.dataset.ann_file={pictures / 'annotations.json'}",
            f"{loader}.total_batch_size=2",
            f"{loader}.num_workers=0",
        ]
    return overrides


def tensors(path: Path, part: str = "ema") -> dict[str, Tensor]:
    content = torch.load(path, weights_only=True)
    found: dict[str, Tensor] = content["ema"]["module"] if part == "ema" else content["model"]
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], leave: Sequence[str] = ()) -> None:
    assert found.keys() - set(leave) == expected.keys() - set(leave)
    for name in expected.keys() - set(leave):
        assert found[name].dtype == expected[name].dtype or expected[name].dim() == 0
        assert torch.equal(found[name], expected[name]), name


def test_evaluated_as_it_is(published: Path, pictures: Path, tmp_path: Path, call: Call) -> None:
    status, out, err = call(
        "train.py", "-c", CONFIG, "-r", published, "--test-only", "-d", "cpu", "-u", *on(pictures, tmp_path)
    )
    assert status == 0, err
    assert f"{published}: took the EMA weights, a published D-FINE file" in out + err
    assert (tmp_path / "eval.json").is_file()


def test_tuned_by_class_name(published: Path, pictures: Path, tmp_path: Path, call: Call) -> None:
    overrides = [*on(pictures, tmp_path), "num_classes=3", "epochs=1", "stages=[{start: 0}]"]
    status, out, err = call("train.py", "-c", CONFIG, "-t", published, "-d", "cpu", "-u", *overrides)
    assert status == 0, err
    said = out + err
    assert "took the EMA weights" in said
    # an encoder head, three decoder heads with a weight and a bias each, and denoising's table
    assert any(line.split()[:5] == ["mapped", "by", "class", "name", "9"] for line in said.splitlines()), said
    assert read_checkpoint(tmp_path / "last.pth")["classes"]["names"] == ["person", "stop sign", "toothbrush"]


def test_detections_carry_cocos_ids(published: Path, pictures: Path, tmp_path: Path, call: Call) -> None:
    arguments = ["-c", CONFIG, "-r", published, "-i", pictures / "1.png", "-o", tmp_path / "found"]
    status, _, err = call(
        "tools/inference/torch_inf.py",
        *arguments,
        "--threshold",
        0,
        "-d",
        "cpu",
        "-u",
        "eval_spatial_size=[64,64]",
    )
    assert status == 0, err
    found = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert found and {row["category_id"] for row in found} <= set(COCO.ids)
    assert any(row["category_id"] > 12 for row in found)  # beyond COCO's first gap


@pytest.fixture
def objects365(published: Path, pictures: Path, tmp_path: Path) -> Path:
    """N with 366 rows of classes, as the authors' Objects365 models have, that sees lamps (id 7) everywhere.

    Row 0 would score higher still. The pictures get Objects365's categories.
    """
    content = torch.load(published, weights_only=True)
    for state in (content["model"], content["ema"]["module"]):
        for name in [name for name in state if "score_head" in name or "class_embed" in name]:
            state[name] = torch.zeros(len(state[name]) + 286, *state[name].shape[1:])
            if name.endswith("bias"):
                state[name] += torch.where(torch.arange(366) == 7, 5.0, -10.0)
                state[name][0] = 9
    path = tmp_path / "dfine_n_obj365.pth"
    torch.save(content, path)
    annotations = json.loads((pictures / "annotations.json").read_text())
    categories = zip(OBJECTS365.ids, OBJECTS365.names, strict=True)
    annotations["categories"] = [{"id": i, "name": name} for i, name in categories]
    (pictures / "annotations.json").write_text(json.dumps(annotations))
    return path


def test_objects365_files_as_they_are(objects365: Path, pictures: Path, tmp_path: Path, call: Call) -> None:
    overrides = [*on(pictures, tmp_path / "run"), "num_classes=365"]
    status, out, err = call(
        "train.py", "-c", CONFIG, "-r", objects365, "--test-only", "-d", "cpu", "-u", *overrides
    )
    assert status == 0, err
    assert "left out row 0, which is no class" in out + err
    given = ["-i", pictures / "1.png", "-o", tmp_path / "found", "--threshold", 0.9, "-d", "cpu"]
    status, _, err = call(
        "tools/inference/torch_inf.py", "-c", CONFIG, "-r", objects365, *given, "-u", *overrides
    )
    assert status == 0, err
    found = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert found and {row["category_id"] for row in found} == {7}


@pytest.mark.slow  # N's export takes 20 s
def test_exported_with_cocos_names(published: Path, tmp_path: Path, call: Call) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    output = tmp_path / "n.onnx"
    arguments = ["-c", CONFIG, "-r", published, "-o", output, "--no-check", "-u", "eval_spatial_size=[64,64]"]
    status, _, err = call("tools/deployment/export_onnx.py", *arguments)
    assert status == 0, err
    properties = {p.key: p.value for p in onnx.load(output).metadata_props}
    assert json.loads(properties["class_names"]) == list(COCO.names)
    assert json.loads(properties["class_ids"]) == list(COCO.ids)


def test_info(published: Path, call: Call) -> None:
    status, out, err = call("tools/checkpoint.py", "info", published)
    assert status == 0, err
    told = {line[:16].strip(): line[16:].strip() for line in out.splitlines()}
    assert (
        told["format"] == "upstream D-FINE's"
        and told["epochs done"] == "148"
        and told["parts"] == "model, ema"
    )
    assert told["weights in use"] == "EMA" and told["step"] == "-"
    assert told["parameters"] == "3,782,691"  # as get_info.py counts N
    assert told["classes"].startswith("80 (not stated, known by their number): 1 person, 2 bicycle")


def test_info_counts_the_parameters_of_our_models(repo_root: Path, tmp_path: Path, call: Call) -> None:
    model = assembly.build_model(assembly.load(repo_root / "configs/dfine/dfine_dinov3_demo.yml"))
    save_checkpoint(tmp_path / "ours.pth", {"model": model.state_dict()})
    status, out, err = call("tools/checkpoint.py", "info", tmp_path / "ours.pth")
    assert status == 0, err
    assert f"parameters      {sum(p.numel() for p in model.parameters()):,}\n" in out


def test_to_upstream_and_back_bit_for_bit(published: Path, tmp_path: Path, shared: Path, call: Call) -> None:
    theirs = tensors(published)
    ours = from_upstream(theirs, up=0.5, reg_scale=4.0)
    plain = from_upstream(tensors(published, "model"), up=0.5, reg_scale=4.0)
    source, output = tmp_path / "ours.pth", tmp_path / "back.pth"
    classes = {"names": list(COCO.names), "ids": list(COCO.ids)}
    save_checkpoint(
        source, {"model": plain, "ema": {"module": ours, "updates": 9}, "epoch": 3, "classes": classes}
    )
    status, out, err = call(
        "tools/checkpoint.py", "convert", source, "--to", output, "--upstream", "-c", CONFIG
    )
    assert status == 0, err
    assert "upstream D-FINE's" in out
    written = tensors(output)
    shapes = json.loads((shared / "parity" / "dfine_hgnetv2_n_keys.json").read_text())
    assert {name: list(t.shape) for name, t in written.items()} == shapes
    assert_same(from_upstream(written, up=0.5, reg_scale=4.0), ours)
    assert_same(from_upstream(tensors(output, "model"), up=0.5, reg_scale=4.0), plain)
    assert_same(written, theirs, leave=COMPUTED)
    content = read_checkpoint(output)
    assert content["ema"]["updates"] == 9 and content["last_epoch"] == 2 and content["classes"] == classes
    # and a published file itself may be written anew
    status, _, err = call(
        "tools/checkpoint.py", "convert", published, "--to", output, "--upstream", "-c", CONFIG
    )
    assert status == 0, err
    assert read_checkpoint(output)["last_epoch"] == 147
    assert_same(tensors(output), theirs, leave=COMPUTED)
    assert_same(tensors(output, "model"), tensors(published, "model"), leave=COMPUTED)


def test_to_safetensors_which_load_again(published: Path, tmp_path: Path, call: Call) -> None:
    output = tmp_path / "new" / "n.safetensors"
    status, out, err = call("tools/checkpoint.py", "convert", published, "--to", output)
    assert status == 0, err
    card = json.loads(output.with_suffix(".json").read_text())
    assert card["weights"] == "ema" and card["classes"]["ids"] == list(COCO.ids)
    again = read_checkpoint(output)
    assert_same(again["ema"]["module"], tensors(published))
    assert again["classes"]["names"] == list(COCO.names)
    assert sorted(os.listdir(output.parent)) == ["n.json", "n.safetensors"]
    assert output.stat().st_size < published.stat().st_size / 1.9


def faults(published: Path, folder: Path) -> list[tuple[list[Any], str]]:
    (folder / "bad.safetensors").write_bytes(b"nothing of the kind")
    (folder / "bad.pth").write_bytes(b"nothing of the kind")
    torch.save({"epoch": 3}, folder / "empty.pth")
    dino = Path("configs/dfine/dfine_dinov3_s_coco.yml")
    out = folder / "out.pth"
    return [
        (["info", folder / "none.pth"], "there is no such checkpoint"),
        (["info", folder / "bad.safetensors"], "cannot be read as safetensors"),
        (["info", folder / "bad.pth"], "is no checkpoint"),
        (["info", folder / "empty.pth"], "keeps its weights under 'model' or 'ema'"),
        (["convert", published, "--to", folder / "out.bin"], "writes .safetensors, or .pth with --upstream"),
        (["convert", published, "--to", published], "is the checkpoint itself"),
        (["convert", published, "--to", out, "--upstream"], "holds no config; name"),
        (["convert", published, "--to", folder / "o.bin", "--upstream", "-c", CONFIG], "is a .pth file"),
        (["convert", published, "--to", out, "--upstream", "-c", dino], "has no DINOv3Backbone"),
        (
            ["convert", folder / "empty.pth", "--to", out, "--upstream", "-c", CONFIG],
            "under 'model' or 'ema'",
        ),
    ]


def test_faults_end_with_one_message_and_status_2(published: Path, tmp_path: Path, call: Call) -> None:
    for arguments, words in faults(published, tmp_path):
        status, out, err = call("tools/checkpoint.py", *arguments)
        assert status == 2 and out == "" and words in err, (arguments, err)
        assert err.count("error: ") == 1 and err.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.glob("out.*"))
