import importlib.util
import json
import runpy
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml

from src import assembly
from src.nn.dfine import DFINE
from src.setup import checks
from src.setup.checks import check_all
from src.setup.findings import Finding, Outcome
from src.teachers import FeatureKind, FeatureWriter

TINY = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "interaction_indexes": [0, 1],
    "out_channels": [32, 32, 32],
    "detail_channels": 8,
}


@pytest.fixture
def config(repo_root: Path, tmp_path: Path):
    """Writes a config of a tiny detector with changes."""

    def write(name: str = "tiny", **changes: object) -> Path:
        content = {
            "__include__": [str(repo_root / "configs/dfine/dfine_dinov3_demo.yml")],
            "output_dir": str(tmp_path / "output"),
            "DINOv3Backbone": TINY,
            "HybridEncoder": {"hidden_dim": 32, "dim_feedforward": 64},
            "DFINETransformer": {"hidden_dim": 32, "dim_feedforward": 64, "num_layers": 1, "num_queries": 20},
            "DFINEPostProcessor": {"num_top_queries": 20},
            **changes,
        }
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def no_export(monkeypatch):
    """An export takes half a minute, and has its own tests."""
    monkeypatch.setattr(checks, "check_export", lambda *_: Outcome("ok", "exported"))


def found(repo_root: Path, *configs: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_all(repo_root, configs, quick=True)}


@pytest.mark.usefixtures("no_export")
def test_everything_of_a_small_config(repo_root, config):
    rows = found(repo_root, config())
    assert list(rows) == [
        "torch",
        "torchvision",
        "timm",
        "config tiny",
        "pictures tiny",
        "sizes tiny",
        "step tiny",
        "ONNX tiny",
    ]
    assert {rows[name].status for name in rows if name not in ("torch", "pictures tiny")} == {"ok"}
    assert rows["torch"].status == ("ok" if torch.cuda.is_available() else "warn")
    experiment = assembly.load(config())
    count = sum(parameter.numel() for parameter in assembly.build_model(experiment).parameters())
    assert f"{count:,} parameters" in rows["config tiny"].told
    assert "64x176, 56x56, 225x400, 120x160, 75x125" in rows["sizes tiny"].told
    assert "loss" in rows["step tiny"].told


@pytest.mark.usefixtures("no_export")
def test_a_config_that_fails_stops_no_other(repo_root, config, tmp_path):
    wrong = config("wrong", DINOv3Backbone={**TINY, "num_heeds": 2}, epochs=-1)
    rows = found(repo_root, wrong, tmp_path / "missing.yml", config())
    assert rows["config wrong"].status == rows["config missing"].status == "fail"
    assert "num_heeds" in rows["config wrong"].told and "epochs" in rows["config wrong"].told
    assert "sizes wrong" not in rows
    assert rows["config tiny"].status == rows["sizes tiny"].status == rows["step tiny"].status == "ok"


@pytest.mark.usefixtures("no_export")
def test_a_model_that_gives_no_finite_numbers(repo_root, config, monkeypatch):
    forward = DFINE.forward

    def broken(self, images, targets=None):
        output = forward(self, images, targets)
        if self.training:
            raise RuntimeError("no kernel image is available")
        return output._replace(logits=output.logits * float("nan"))

    monkeypatch.setattr(DFINE, "forward", broken)
    rows = found(repo_root, config())
    assert rows["sizes tiny"].status == "fail" and "64x176 is not a finite number" in rows["sizes tiny"].told
    assert rows["step tiny"].status == "fail" and "RuntimeError: no kernel image" in rows["step tiny"].told
    assert rows["ONNX tiny"].status == "ok"


@pytest.mark.usefixtures("no_export")
def test_alike_backbones_run_once(repo_root, config):
    other = config("other", num_classes=3)
    deeper = config("deeper", DINOv3Backbone={**TINY, "depth": 3, "interaction_indexes": [0, 2]})
    rows = found(repo_root, config(), other, deeper)
    assert [name for name in rows if name.startswith("sizes")] == ["sizes tiny", "sizes deeper"]
    assert [name for name in rows if name.startswith("step")] == ["step tiny", "step other", "step deeper"]


def pretrained(path: Path | None) -> dict[str, object]:
    """A section that asks for weights; the whole ViT, since a smaller one has none."""
    return {"DINOv3Backbone": {"pretrained": True, "checkpoint_path": None if path is None else str(path)}}


def section_of(repo_root: Path, tmp_path: Path, path: Path | None) -> Path:
    real = {"__include__": [str(repo_root / "configs/dfine/dfine_dinov3_s_coco.yml")], **pretrained(path)}
    config = tmp_path / "real.yml"
    config.write_text(yaml.safe_dump(real))
    return config


@pytest.fixture
def weights_alone(monkeypatch):
    """Rehearses nothing: the real backbone is too slow for that here."""
    for name in ("run_at_sizes", "train_a_step", "check_export"):
        monkeypatch.setattr(checks, name, lambda *_: Outcome("ok", "not tried"))


@pytest.mark.usefixtures("weights_alone")
def test_weights_missing_whole_and_damaged(repo_root, tmp_path):
    path = tmp_path / "vits16.pth"
    config = section_of(repo_root, tmp_path, path)
    name = "weights DINOv3Backbone dinov3_small"
    missing = found(repo_root, config)[name]
    assert missing.status == "warn" and str(path) in missing.told
    assert "download_dinov3_weights.py --model small" in missing.remedy

    torch.save(assembly.build_model(assembly.load(config)).backbone.vit.state_dict(), path)
    assert found(repo_root, config)[name].status == "ok"

    path.write_bytes(path.read_bytes()[:-1000])
    damaged = found(repo_root, config)[name]
    assert damaged.status == "fail" and "cannot be read as weights" in damaged.told


@pytest.mark.usefixtures("weights_alone")
def test_weights_that_timm_would_fetch(repo_root, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    row = found(repo_root, section_of(repo_root, tmp_path, None))["weights DINOv3Backbone dinov3_small"]
    assert row.status == "warn" and "timm fetches it" in row.told and "checkpoint_path" in row.remedy


@pytest.mark.usefixtures("weights_alone")
def test_pictures_that_are_there_or_not(repo_root, config, tmp_path):
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    (here / "a.json").write_text("{}")

    def loaders(folder: Path) -> dict[str, object]:
        dataset = {"img_folder": str(folder), "ann_file": str(folder / "a.json")}
        return {f"{split}_dataloader": {"dataset": dataset} for split in ("train", "val")}

    good, bad = config("good", **loaders(here)), config("bad", **loaders(gone))
    rows = found(repo_root, good, bad)
    assert rows["pictures good"].status == "ok"
    assert rows["pictures bad"].status == "warn" and str(gone / "a.json") in rows["pictures bad"].told
    assert "-u data=" in rows["pictures bad"].remedy


def test_an_export_without_its_packages(repo_root, config, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    row = found(repo_root, config())["ONNX tiny"]
    assert row.status == "warn" and "onnxruntime missing" in row.told
    assert "requirements-export.txt" in row.remedy


@pytest.mark.slow
def test_an_export_that_is_compared(repo_root, config):
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    row = found(repo_root, config())["ONNX tiny"]
    assert row.status == "ok" and "px of PyTorch's" in row.told


def door(repo_root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    path = str(repo_root / "tools" / "check_setup.py")
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("no_export")
def test_the_door_as_json_and_its_status(repo_root, config, tmp_path, monkeypatch, capsys):
    assert door(repo_root, monkeypatch, "-c", config(), "--quick", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] and told["fail"] == 0 and told["checks"][0]["check"] == "Python"
    assert door(repo_root, monkeypatch, "-c", tmp_path / "missing.yml", "--quick") == 1
    assert "fail  config missing" in capsys.readouterr().out


@pytest.mark.usefixtures("no_export")
def test_the_door_takes_a_runs_overrides(repo_root, config, tmp_path, monkeypatch, capsys):
    update = f"train_dataloader.dataset.img_folder={tmp_path / 'mine'}"
    assert door(repo_root, monkeypatch, "-c", config(), "-u", update, "--quick") == 0
    assert str(tmp_path / "mine") in capsys.readouterr().out
    assert door(repo_root, monkeypatch, "-u", update) == 2


def test_without_a_config_all_are_checked(repo_root, monkeypatch):
    asked: list[Path] = []

    def note(path: Path, *_: object) -> Outcome:
        asked.append(path)
        return Outcome("ok", "not built")

    monkeypatch.setattr(checks, "check_config", note)
    found(repo_root)
    folder = repo_root / "configs" / "dfine"
    assert set(asked) == set(folder.rglob("*.yml")) - set(folder.glob("include/*.yml"))
    assert {repo_root / name for name in checks.REHEARSED.values()} <= set(asked)


@pytest.mark.usefixtures("weights_alone")
def test_a_teacher_and_its_features(repo_root, config, tmp_path):
    gone = tmp_path / "gone"
    asked = config(
        "asked", distillation={"teacher": {"model_type": "vit_base", "checkpoint_path": str(gone)}}
    )
    read = config("read", distillation={"features": str(gone)})
    rows = found(repo_root, asked, read)
    teacher = rows["weights distillation.teacher dinov3_base"]
    assert teacher.status == "warn" and "--model base" in teacher.remedy
    assert rows["features"].status == "warn" and "extract_features.py" in rows["features"].remedy
    gone.mkdir()
    assert "holds no features" in found(repo_root, read)["features"].told


@pytest.mark.usefixtures("weights_alone")
@pytest.mark.parametrize(
    ("feature", "ids", "names", "said"),
    [
        ("patch_tokens", [1, 2], ["a.jpg", "b.jpg"], None),
        ("patch_tokens", [1], ["a.jpg"], "lacks 1 of the 2 pictures"),
        ("patch_tokens", [1, 2], ["a.jpg", "c.jpg"], "holds c.jpg as picture 2, which is b.jpg"),
        ("cls_token", [1, 2], ["a.jpg", "b.jpg"], "no patch tokens"),
    ],
)
def test_features_that_training_would_refuse(repo_root, config, tmp_path, feature, ids, names, said):
    kind = FeatureKind("vit_base", "0" * 16, (16, 16), "float16", {feature: 4})
    shape = (len(ids), 1, 4) if feature == "patch_tokens" else (len(ids), 4)
    FeatureWriter(tmp_path / "features", kind).write(ids, names, {feature: torch.zeros(shape)})
    ann_file = tmp_path / "train.json"
    dataset = {"img_folder": str(tmp_path), "ann_file": str(ann_file)}
    read = config(
        distillation={"features": str(tmp_path / "features")}, train_dataloader={"dataset": dataset}
    )
    unlisted = found(repo_root, read)["features"]
    assert unlisted.status == ("fail" if feature == "cls_token" else "ok")
    images = [{"id": i, "file_name": f"{n}.jpg", "width": 8, "height": 8} for i, n in ((1, "a"), (2, "b"))]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    document = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "x"}]}
    ann_file.write_text(json.dumps(document))
    listed = found(repo_root, read)["features"]
    assert listed.status == ("fail" if said else "ok")
    assert (said or "all of") in listed.told


@pytest.mark.usefixtures("weights_alone")
def test_an_anchor_that_training_would_refuse(repo_root, config):
    gram = {"gram_anchoring": {"weight": 1.0}}
    compiled = config("compiled", **gram, compile=True)
    rows = found(repo_root, compiled, config("fine", **gram))
    assert rows["config compiled"].status == "fail" and "set compile to False" in rows["config compiled"].told
    assert rows["config fine"].status == "ok"
    path = repo_root / "configs/dfine/dfine_dino_adapter_s_coco.yml"
    (row,) = (
        f
        for f in check_all(repo_root, [path], ["gram_anchoring.weight=1.0"], quick=True)
        if f.check == f"config {path.stem}"
    )
    assert row.status == "fail" and "DinoAdapter; remove gram_anchoring" in row.told
