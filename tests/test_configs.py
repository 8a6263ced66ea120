"""Every YAML under configs/ is read, checked and built."""

from pathlib import Path

import pytest
import yaml

from src import assembly
from src.optim import Rule, parameter_groups

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FRAGMENTS = ("dataset", "include", "runtime.yml")
ALL = sorted(CONFIGS.rglob("*.yml"))
WHOLE = [p for p in ALL if not any(part in FRAGMENTS for part in p.relative_to(CONFIGS).parts)]
DATASETS = sorted((CONFIGS / "dataset").glob("*.yml"))


def included(path: Path) -> set[Path]:
    names = yaml.safe_load(path.read_text()).get("__include__", [])
    below = {(path.parent / name).resolve() for name in names}
    return below.union(*(included(p) for p in below))


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", WHOLE, ids=name)
def test_a_config_builds_with_its_criterion_and_groups(path: Path) -> None:
    experiment = assembly.load(path)
    model = assembly.build_model(experiment)
    assembly.build_criterion(experiment)
    assembly.build_postprocessor(experiment)
    rules = [Rule(r.params, r.lr, r.weight_decay) for r in experiment.optimizer.params]
    groups = parameter_groups(
        model, rules, lr=experiment.optimizer.lr, weight_decay=experiment.optimizer.weight_decay
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize("path", WHOLE, ids=name)
def test_a_resolved_config_loads_again_to_the_same(path: Path, tmp_path: Path) -> None:
    experiment = assembly.load(path)
    (tmp_path / "config.yml").write_text(assembly.dump(experiment))
    assert assembly.load(tmp_path / "config.yml") == experiment


def test_every_fragment_is_used_by_a_config() -> None:
    used = set().union(*(included(path) for path in WHOLE))
    assert [name(p) for p in ALL if p not in [*WHOLE, *DATASETS] and p.resolve() not in used] == []


@pytest.mark.parametrize("dataset", DATASETS, ids=name)
def test_any_model_takes_any_dataset(dataset: Path, tmp_path: Path) -> None:
    model = CONFIGS / "dfine" / "dfine_hgnetv2_n_coco.yml"
    (tmp_path / "run.yml").write_text(f"__include__: ['{model}', '{dataset}']\n")
    experiment = assembly.load(tmp_path / "run.yml")
    stated = yaml.safe_load(dataset.read_text())
    assert experiment.num_classes == stated["num_classes"]
    assert assembly.build_model(experiment).decoder.num_classes == stated["num_classes"]
    for loader in ("train_dataloader", "val_dataloader"):
        for key in ("img_folder", "ann_file", "drop_empty_boxes"):  # the last is True for COCO
            assert getattr(getattr(experiment, loader).dataset, key) == stated[loader]["dataset"][key]


@pytest.mark.parametrize("preset", sorted((CONFIGS / "dfine" / "presets").glob("*.yml")), ids=name)
def test_a_preset_takes_pictures_of_ones_own(preset: Path, tmp_path: Path) -> None:
    custom = CONFIGS / "dfine" / "custom" / "dfine_dinov3_s_custom.yml"
    of_coco = "../dfine_dinov3_s_coco.yml"
    text = custom.read_text()
    assert of_coco in text  # what docs/dinov3_backbone.md tells to replace
    text = text.replace(of_coco, str(preset)).replace("../..", str(CONFIGS))
    (tmp_path / "run.yml").write_text(text)
    ours, default = assembly.load(tmp_path / "run.yml"), assembly.load(custom)
    assert ours.train_dataloader == default.train_dataloader
    assert ours.stages == assembly.load(preset).stages != default.stages


def test_output_folders_differ() -> None:
    folders = [assembly.load(path).output_dir for path in WHOLE]
    assert len(set(folders)) == len(folders)
