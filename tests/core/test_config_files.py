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


@pytest.mark.parametrize("dataset", ["coco", "custom"])
def test_both_datasets_have_the_same_keys(dataset: str) -> None:
    tree = plain(read(f"dataset/{dataset}_detection.yml"))
    assert tree["train_dataloader"]["dataset"]["img_folder"].startswith(f"./dataset/{dataset}/")
    assert set(tree) == {"task", "num_classes", "evaluator", "train_dataloader", "val_dataloader"}


@pytest.mark.parametrize(
    ("size", "lr", "backbone_lr", "weight_decay", "epochs", "plain_from", "batch", "repeat"),
    [("n", 8e-4, 4e-4, 1e-4, 160, 148, 128, None), ("l", 2.5e-4, 1.25e-5, 1.25e-4, 80, 72, 32, 4)],
)
def test_the_published_recipe(
    size: str,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    epochs: int,
    plain_from: int,
    batch: int,
    repeat: int | None,
) -> None:
    tree = plain(read(f"dfine/dfine_hgnetv2_{size}_coco.yml"))
    optimizer = tree["optimizer"]
    assert (optimizer["lr"], optimizer["weight_decay"], tree["epochs"]) == (lr, weight_decay, epochs)
    assert {rule["lr"] for rule in optimizer["params"] if "backbone" in rule["params"]} == {backbone_lr}
    assert tree["train_dataloader"]["total_batch_size"] == batch
    assert tree.get("multi_scale") == (repeat and {"base_size_repeat": repeat})
    assert [stage["start"] for stage in tree["stages"]] == [0, plain_from]
    assert [stage["strong_augmentation"] for stage in tree["stages"]] == [True, False]
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
