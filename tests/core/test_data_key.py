"""The key `data`: what it counts, which paths give way to it, and which do not."""

from pathlib import Path

import pytest
from config_fakes import BASE, COMPONENTS, TRANSFORMS, write

from src.core import ConfigError, Experiment, dump_experiment, load_experiment

ASKED: list[str] = []


def count(path: str) -> int:
    ASKED.append(path)
    if path == "/nowhere":
        raise ValueError("dataset /nowhere does not exist")
    return 7


def load(path: Path, *overrides: str) -> Experiment:
    ASKED.clear()
    return load_experiment(path, overrides, components=COMPONENTS, transforms=TRANSFORMS, count_classes=count)


def paths(experiment: Experiment) -> list[str | None]:
    train, val = experiment.train_dataloader.dataset, experiment.val_dataloader.dataset
    return [train.img_folder, train.ann_file, val.img_folder, val.ann_file]


NONE = [None, None, None, None]


def test_without_it_nothing_is_counted(tmp_path: Path) -> None:
    experiment = load(write(tmp_path))
    assert (experiment.data, experiment.num_classes, ASKED) == (None, 3, [])


def test_what_an_include_says_gives_way(tmp_path: Path) -> None:
    for text, overrides in (("", ["data=/mine"]), ("data: /mine\n", [])):
        experiment = load(write(tmp_path, "__include__: base.yml\n" + text), *overrides)
        assert (experiment.data, experiment.num_classes, paths(experiment)) == ("/mine", 7, NONE)
        assert ASKED == ["/mine"]


def test_an_include_may_name_it_too(tmp_path: Path) -> None:
    experiment = load(write(tmp_path, base="data: /mine\n" + BASE))
    assert (experiment.num_classes, paths(experiment)) == (7, NONE)


def test_a_number_of_the_users_own_stays(tmp_path: Path) -> None:
    own = "__include__: base.yml\nnum_classes: 5\n"
    assert load(write(tmp_path, own), "data=/mine").num_classes == 5
    assert load(write(tmp_path), "data=/mine", "num_classes=4").num_classes == 4
    assert ASKED == []


def test_paths_nearer_to_the_user_stay(tmp_path: Path) -> None:
    own = "__include__: base.yml\ntrain_dataloader: {dataset: {img_folder: x, ann_file: y}}\n"
    assert paths(load(write(tmp_path, own + "data: /mine\n"))) == ["x", "y", None, None]
    assert paths(load(write(tmp_path, own), "data=/mine")) == NONE
    val = "val_dataloader.dataset={img_folder: v, ann_file: w}"
    assert paths(load(write(tmp_path, own), "data=/mine", val)) == [None, None, "v", "w"]
    assert paths(load(write(tmp_path, own + "data: /mine\n"), val)) == ["x", "y", "v", "w"]


@pytest.mark.parametrize("overrides", [(), ("val_dataloader.dataset={img_folder: v, ann_file: w}",)])
def test_the_resolved_file_loads_to_the_same(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    experiment = load(write(tmp_path), "data=/mine", *overrides)
    (tmp_path / "config.yml").write_text(dump_experiment(experiment))
    assert load(tmp_path / "config.yml") == experiment
    assert ASKED == []  # the number stands in it


def test_faults_of_the_dataset_come_with_all_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path), "data=/nowhere", "epochs=0")
    text = str(caught.value)
    assert "-u data=/nowhere: data: dataset /nowhere does not exist" in text
    assert "epochs" in text


@pytest.mark.parametrize("value", ["3", "[a]", "{a: b}"])
def test_it_must_be_text(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="data must be"):
        load(write(tmp_path), f"data={value}")


def test_paths_are_required_without_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"val_dataloader\.dataset\.ann_file is required.*data="):
        load(write(tmp_path), "val_dataloader.dataset.ann_file=null")
    with pytest.raises(ConfigError, match=r"val_dataloader\.dataset\.ann_file is required"):
        load(write(tmp_path), "data=/mine", "val_dataloader.dataset={img_folder: v, ann_file: null}")
