from pathlib import Path

import pytest
import yaml
from config_fakes import load, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.core import dump_experiment
from src.core.dumping import _Dumper
from src.core.problems import Place, Problems
from src.core.schema import plain
from src.core.yaml_tree import read_text

FULL = """\
__include__: base.yml
seed: 0
device: 'cpu'
summary_dir: '1e5'
multi_scale: {base_size_repeat: 3}
stages:
  - {start: 0, strong_augmentation: True, backbone: frozen, backbone_lr_factor: 1e-7}
  - {start: -2, multi_scale: False, backbone: 4, ema_restart_decay: .9998}
lr_scheduler: {milestones: [3, 8]}
lr_warmup_scheduler: {warmup_duration: 5}
BackboneA: {name: 'yes', channels: []}
Matcher: {costs: {'~': 1, '3': 2, 'a: b': 1e-30}}
"""


@pytest.mark.parametrize("text", ["__include__: base.yml\n", FULL], ids=["defaults", "full"])
def test_the_dump_loads_to_an_equal_experiment(tmp_path: Path, text: str) -> None:
    exp = load(write(tmp_path, text))
    dumped = dump_experiment(exp)
    assert "__include__" not in dumped
    again = tmp_path / "elsewhere" / "config.yml"
    again.parent.mkdir()
    again.write_text(dumped)
    assert load(again) == exp
    assert dump_experiment(load(again)) == dumped


def test_parts_are_dumped_as_sections_of_their_own(tmp_path: Path) -> None:
    dumped = yaml.safe_load(dump_experiment(load(write(tmp_path))))
    assert dumped["Losses"] == {"matcher": "Matcher"}
    assert dumped["Matcher"] == {"alpha": 1.0, "costs": {"x": 2.0}}
    assert dumped["train_dataloader"]["dataset"]["transforms"]["ops"][0] == {"type": "Crop", "p": 1.0}
    assert dumped["output_dir"] == "./output/run"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
    | st.sampled_from(
        ["yes", "no", "on", "1e-4", "1e5", "012", "1:30", "0x1F", "2024-01-01", "~", "", "=", "<<", "1_0"]
    )
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scalars)
def test_every_scalar_survives_the_way_out_and_in(value: object) -> None:
    text = yaml.dump({"key": [value]}, Dumper=_Dumper, allow_unicode=True, default_flow_style=None, width=110)
    problems = Problems()
    node = read_text(text, Place("f.yml", 1), problems)
    problems.raise_any()
    assert node is not None
    (got,) = plain(node)["key"]
    assert got == value
    assert type(got) is type(value)
