"""The page of a published model: metrics of these very weights alone, the right licence, any class name."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from src import assembly
from src.deploy import hub
from src.deploy.model_page import dataset_name, model_page
from src.deploy.trained import Metrics, Trained, kind_of_backbone, metrics_of, stamp_of
from src.evaluation.metrics import NAMES
from src.setup.licence import ADDRESS
from src.solver.checkpoint import save_checkpoint
from src.structures import ClassNames

BEST = {**{name: 0.5 + i / 100 for i, name in enumerate(NAMES)}, "AP_small": -1.0, "epoch": 35}
TOLD = {
    "epoch": 36,
    "step_in_epoch": 0,
    "step": 900,
    "best": BEST,
    "weights": "ema",
    "versions": {"torch": "2"},
}
ROWS = [
    {"name": "cat", "id": 1, "AP": 0.25, "AP50": 0.75, "AR_100": 0.5, "num_objects": 1234},
    {"name": "a|b\n<script>", "id": 7, "AP": -1, "AP50": -1, "AR_100": -1, "num_objects": 0},
]


@pytest.fixture(scope="module")
def trained(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
    path = tmp_path_factory.mktemp("run") / "best.pth"
    save_checkpoint(path, {"model": {}, **TOLD})
    path.with_name("eval.json").write_text(json.dumps({**BEST, "classes": ROWS}))
    experiment = assembly.load(config, ["num_classes=2", "data=/home/alice/cells"])
    names = ClassNames(("cat", "a|b\n<script>"), (1, 7))
    return Trained(path, stamp_of(path), experiment, names, "DINOv3", False, 1234567, True)


def page(trained: Trained, metrics: Metrics | None = None, license: str | None = None, **more: Any) -> str:
    found = metrics_of(trained, TOLD) if metrics is None else metrics
    return model_page("my model", trained, TOLD, found, license=license, with_license_file=False, **more)


def data_of(text: str) -> dict[str, Any]:
    return huggingface_hub.ModelCard(text).data.to_dict()


def test_metrics_and_classes_stand_on_the_page(trained: Trained) -> None:
    text = page(trained)
    (results,) = data_of(text)["model-index"][0]["results"]
    assert results["dataset"] == {"name": "cells", "type": "cells", "split": "val"}
    assert [(one["type"], one["value"]) for one in results["metrics"]] == [
        ("AP", BEST["AP"]),
        ("AP50", BEST["AP50"]),
        ("AP75", BEST["AP75"]),
    ]
    assert "| 0 | cat | 1 | 0.250 | 0.750 | 1,234 |" in text
    assert r"| 1 | a\|b &lt;script&gt; | 7 | - | - | 0 |" in text
    assert "| AP_small | - |" in text and "after 36 of " in text
    assert "1,234,567 parameters for 2 classes" in text
    assert "alice" not in text


@pytest.mark.parametrize(
    "change",
    [{"epoch": 37}, {"step_in_epoch": 5}, {"step_in_epoch": None}, {"best": {}}, {"best": None}],
)
def test_numbers_of_other_weights_are_left_out(trained: Trained, change: dict[str, Any]) -> None:
    found = metrics_of(trained, {**TOLD, **change})
    assert found == Metrics({}, ())
    text = page(trained, found)
    assert "model-index" not in data_of(text)
    assert "no evaluation of these very weights" in text and "| 0 | cat | 1 |\n" in text


def test_numbers_of_another_configuration_are_left_out(trained: Trained) -> None:
    assert metrics_of(trained._replace(as_stored=False), TOLD) == Metrics({}, ())


@pytest.mark.parametrize("change", [{"AP": 0.1}, {"classes": ROWS[:1]}, {"classes": [{"name": "cat"}]}, None])
def test_rows_of_another_evaluation_are_left_out(
    trained: Trained, change: dict[str, Any] | None, tmp_path: Path
) -> None:
    if change is not None:
        (tmp_path / "eval.json").write_text(json.dumps({**BEST, "classes": ROWS, **change}))
    found = metrics_of(trained._replace(path=tmp_path / "best.pth"), TOLD)
    assert found.numbers["AP"] == BEST["AP"] and found.classes == ()


def test_weights_from_dinov3_are_under_its_licence(trained: Trained, tmp_path: Path) -> None:
    derived = trained._replace(pretrained=True)
    text = page(derived)
    told = data_of(text)
    assert (told["license"], told["license_name"]) == ("other", "dinov3-license")
    assert told["license_link"] == ADDRESS and ADDRESS in text
    assert "No copy of it is in this folder" in text and told["tags"] == ["d-fine", "dinov3"]
    with pytest.raises(ValueError, match="license 'mit' is stated, but the model is trained from DINOv3"):
        hub.save_pretrained(derived, tmp_path / "model", license="mit")
    with pytest.raises(ValueError, match=r"nothing was uploaded.*give its text as license_file"):
        hub.push_to_hub(derived, "user/model")


def test_the_licence_is_copied_beside_the_page(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "terms.txt").write_bytes(b"terms\r\n")
    save_checkpoint(tmp_path / "w.pth", {"model": {"w": torch.zeros(1)}})
    path = tmp_path / "w.pth"
    derived = trained._replace(pretrained=True, path=path, stamp=stamp_of(path))
    hub.save_pretrained(derived, tmp_path / "bare")
    assert "asks for a copy of it here" in caplog.text
    caplog.clear()
    hub.save_pretrained(derived, tmp_path / "model", license_file=tmp_path / "terms.txt")
    assert caplog.text == ""
    assert (tmp_path / "model" / "LICENSE.md").read_bytes() == b"terms\r\n"
    assert "The copy is in LICENSE.md" in (tmp_path / "model" / "README.md").read_text()


def test_what_another_program_stored_is_told(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": {"w": torch.zeros(1)}, "versions": 3}, path)
    with pytest.raises(ValueError, match=r"w\.pth: 'versions' is 3, and has to be an object of texts"):
        hub.save_pretrained(trained._replace(path=path, stamp=stamp_of(path)), tmp_path / "model")


def test_other_weights_are_under_what_their_owner_says(trained: Trained) -> None:
    text = page(trained)
    assert "license" not in data_of(text) and "Its owner has stated no licence" in text
    assert "is not recorded" in text and "DINOv3 License" not in text
    text = page(trained._replace(pretrained=True, backbone="HGNetv2"), license="apache-2.0")
    assert data_of(text)["license"] == "apache-2.0"
    assert "HGNetv2's published weights, which are under Apache-2.0" in text


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("dfine_dinov3_s_coco.yml", ("DINOv3", True)),
        ("dfine_dino_adapter_s_coco.yml", ("DINOv3", True)),
        ("dfine_hgnetv2_n_coco.yml", ("HGNetv2", True)),
        ("dfine_dinov3_demo.yml", ("DINOv3", False)),
    ],
)
def test_the_backbone_is_known(repo_root: Path, config: str, expected: tuple[str, bool]) -> None:
    with torch.device("meta"):
        model = assembly.build_model(assembly.load(repo_root / "configs/dfine" / config))
    assert kind_of_backbone(model) == expected


def test_a_distilled_model_says_that_its_licence_is_undecided(trained: Trained, repo_root: Path) -> None:
    taught = assembly.load(repo_root / "configs/dfine/distill/dfine_hgnetv2_s_vitb_coco.yml")
    text = page(trained._replace(experiment=taught, backbone="HGNetv2"), Metrics({}, ()))
    assert "resemble a DINOv3 teacher" in text and "Meta has not said" in text


def test_data_are_named_without_their_place(repo_root: Path) -> None:
    named = {
        "/x/cells": "cells",
        r"C:\alice\cells": "cells",
        "/x/cells/data.yaml": "cells",
        "data.yaml": "data",
        "../bccd": "bccd",
    }
    for data, expected in named.items():
        experiment = assembly.load(
            repo_root / "configs/dfine/dfine_dinov3_demo.yml", [f"data={data}", "num_classes=2"]
        )
        assert dataset_name(experiment) == expected
    coco = assembly.load(repo_root / "configs/dfine/dfine_hgnetv2_n_coco.yml")
    assert dataset_name(coco) == "instances_val2017"
