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
    assert [name(p) for p in ALL if p not in WHOLE and p.resolve() not in used] == []


def test_output_folders_differ() -> None:
    folders = [assembly.load(path).output_dir for path in WHOLE]
    assert len(set(folders)) == len(folders)
