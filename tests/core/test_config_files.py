import json
import re
from pathlib import Path

import pytest

from src.core.includes import read_config
from src.core.problems import Problems
from src.core.schema import plain
from src.core.yaml_tree import Section

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NO_DECAY = re.compile(r"norm|bn|lab|bias")


def read(name: str) -> Section:
    problems = Problems()
    tree = read_config(CONFIGS / name, problems)
    problems.raise_any()
    assert tree is not None
    return tree


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yml")), ids=lambda path: path.stem)
def test_every_file_reads_strictly(path: Path) -> None:
    read(str(path.relative_to(CONFIGS)))


@pytest.mark.parametrize("dataset", ["coco", "crowdhuman", "custom", "obj365", "voc"])
def test_all_datasets_have_the_same_keys(dataset: str) -> None:
    tree = plain(read(f"dataset/{dataset}_detection.yml"))
    assert tree["train_dataloader"]["dataset"]["img_folder"].startswith(f"./dataset/{dataset}")
    assert set(tree) == {"task", "num_classes", "evaluator", "train_dataloader", "val_dataloader"}


@pytest.mark.parametrize(
    ("file", "lr", "backbone_lr", "weight_decay", "epochs", "plain_from", "batch", "repeat"),
    [
        ("n_coco", 8e-4, 4e-4, 1e-4, 160, 148, 128, None),
        ("s_coco", 2e-4, 1e-4, 1e-4, 132, 120, 32, 20),
        ("m_coco", 2e-4, 2e-5, 1e-4, 132, 120, 32, 6),
        ("l_coco", 2.5e-4, 1.25e-5, 1.25e-4, 80, 72, 32, 4),
        ("x_coco", 2.5e-4, 2.5e-6, 1.25e-4, 80, 72, 32, 3),
        ("s_obj365", 2.5e-4, 1.25e-4, 1.25e-4, 36, None, 32, 20),
        ("m_obj365", 2.5e-4, 2.5e-5, 1.25e-4, 36, None, 32, 6),
        ("l_obj365", 2.5e-4, 1.25e-5, 1.25e-4, 24, None, 32, 4),
        ("x_obj365", 2.5e-4, 2.5e-6, 1.25e-4, 24, None, 32, 3),
        ("s_obj2coco", 2.5e-4, 1.25e-4, 1.25e-4, 64, 56, 32, 10),
        ("m_obj2coco", 2.5e-4, 2.5e-5, 1.25e-4, 56, 48, 32, 6),
        ("l_obj2coco", 2.5e-4, 1.25e-5, 1.25e-4, 36, 30, 32, 4),
        ("x_obj2coco", 2.5e-4, 2.5e-6, 1.25e-4, 36, 30, 32, 3),
    ],
)
def test_the_published_recipe(
    file: str,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    epochs: int,
    plain_from: int | None,
    batch: int,
    repeat: int | None,
) -> None:
    folder = "dfine" if file.endswith("_coco") else "dfine/objects365"
    tree = plain(read(f"{folder}/dfine_hgnetv2_{file}.yml"))
    optimizer = tree["optimizer"]
    assert (optimizer["lr"], optimizer["weight_decay"], tree["epochs"]) == (lr, weight_decay, epochs)
    assert {rule["lr"] for rule in optimizer["params"] if "backbone" in rule["params"]} == {backbone_lr}
    assert tree["train_dataloader"]["total_batch_size"] == batch
    assert tree.get("multi_scale") == (repeat and {"base_size_repeat": repeat})
    first, *rest = tree["stages"]
    assert (first["start"], first["strong_augmentation"]) == (0, True)
    assert first.get("multi_scale", False) == (repeat is not None)
    assert [(s["start"], s["strong_augmentation"]) for s in rest] == (
        [(plain_from, False)] if plain_from else []
    )
    assert [s["ema_restart_decay"] for s in rest] == ([0.9998 if file == "x_coco" else 0.9999] * len(rest))
    assert not any(stage.get("multi_scale", False) for stage in rest)
    tuned = file.endswith("obj2coco")
    assert tree["ema"]["warmups"] == (0 if tuned else 1000)
    assert tree["lr_warmup_scheduler"]["warmup_duration"] == (0 if tuned else 500)
    assert tree["num_classes"] == (365 if file.endswith("obj365") else 80)
    assert (tree["clip_max_norm"], tree["ema"]["decay"]) == (0.1, 0.9999)


@pytest.mark.parametrize("size", ["n", "l"])
def test_the_groups_spare_norms_and_biases_of_decay(size: str, shared: Path) -> None:
    keys = json.loads((shared / "parity" / f"dfine_hgnetv2_{size}_keys.json").read_text())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in keys if not name.endswith(statistics)]
    if size == "l":  # freeze_norm: the backbone's norms have no parameters
        names = [name for name in names if not re.search(r"^backbone\..*bn", name)]
    rules = plain(read(f"dfine/dfine_hgnetv2_{size}_coco.yml"))["optimizer"]["params"]
    owned = {name: [rule for rule in rules if re.search(rule["params"], name)] for name in names}
    assert all(len(found) <= 1 for found in owned.values())
    assert all(any(rule in found for found in owned.values()) for rule in rules)
    for name, found in owned.items():
        spared = bool(found) and found[0].get("weight_decay") == 0
        assert spared == bool(NO_DECAY.search(name)), name
        assert (bool(found) and "lr" in found[0]) == name.startswith("backbone."), name
