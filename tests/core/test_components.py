import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from config_fakes import COMPONENTS, TRANSFORMS, Shaped, load, write

from src.core import ConfigError, load_experiment


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, *overrides)
    return caught.value.problems


def test_another_backbone_leaves_the_included_section_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "__include__: base.yml\nNet: {backbone: BackboneB}\nBackboneB: {mode: y}\n")
    with caplog.at_level(logging.INFO):
        exp = load(path)
    assert exp.wiring["Net"] == {"backbone": "BackboneB", "head": "Head"}
    assert exp.components["BackboneB"] == {"mode": "y"}
    assert "BackboneA" not in exp.components
    assert "base.yml:7: the section BackboneA is not used and left out" in caplog.text


def test_a_section_that_the_user_wrote_for_nothing_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "__include__: base.yml\nBackboneB: {mode: y}\n")
    assert faults(path) == (
        "run.yml:2: nothing uses the section BackboneB; in use: BackboneA, Head, Losses, Matcher, Net, Post "
        "(model: Net, criterion: Losses, postprocessor: Post)",
    )
    (found,) = faults(write(tmp_path, "__include__: base.yml\n"), "BackboneB.mode=y")
    assert found.startswith("-u BackboneB.mode=y: nothing uses the section BackboneB")


def test_an_included_section_that_the_user_adds_to_is_his_own(tmp_path: Path) -> None:
    path = write(tmp_path, "__include__: base.yml\nNet: {backbone: BackboneB}\nBackboneA: {depth: 1}\n")
    (found,) = faults(path)
    assert found.startswith("run.yml:3: nothing uses the section BackboneA")


def test_a_part_may_carry_its_knobs_over_its_own_section(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "__include__: base.yml\n"
        "Net: {backbone: {type: BackboneA, channels: [5]}}\n"
        "Matcher: {alpha: 9, costs: ~}\n",
    )
    exp = load(path)
    assert exp.components["BackboneA"] == {"depth": 6, "channels": (5,)}
    assert exp.components["Matcher"] == {"alpha": 1.0, "costs": {"x": 2.0}}  # the inline mapping is on top


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "Net: {backbone: backbonea}",
            "Net.backbone names no component 'backbonea'; did you mean 'BackboneA'?",
        ),
        ("Net: {backbone: {type: Backbon}}", "Net.backbone names no component 'Backbon'"),
        ("Net: {head: BackboneA}", "Net.head cannot be BackboneA; fitting: Head"),
        (
            "Net: {backbone: Matcher}",
            "Net.backbone cannot be Matcher; fitting: BackboneA, BackboneB, Head, Net",
        ),
        ("Net: {backbone: 3}", "Net.backbone must be a component's name, or a mapping with `type:`"),
        ("Net: {backbone: {depth: 3}}", "Net.backbone must be a component's name, or a mapping with `type:`"),
        ("Net: {backbone: {type: BackboneA, dep: 3}}", "unknown key BackboneA.dep; did you mean 'depth'?"),
        ("BackboneA: 3", "BackboneA must be a mapping of its knobs"),
        ("Head: ~", "Head must be a mapping of its knobs"),
        ("Head: {levels: [1]}", "Head.levels is set by the program, not by the YAML"),
        ("Head: {rate: [1]}", "Head.rate must be a number, not a list"),
    ],
)
def test_faulty_parts_are_the_only_thing_told(tmp_path: Path, text: str, fault: str) -> None:
    (found,) = faults(write(tmp_path, f"__include__: base.yml\n{text}\n"))
    assert found.startswith(f"run.yml:2: {fault}")


def test_a_part_that_is_not_named_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path)
    text = (tmp_path / "base.yml").read_text().replace("{backbone: BackboneA, head: Head}", "{}")
    text = text.replace("Losses: {matcher: {type: Matcher, alpha: 1, costs: {x: 2}}}\n", "")
    (tmp_path / "base.yml").write_text(text)
    assert faults(path) == (
        "base.yml:2: Losses.matcher is required; name one of Matcher",
        "base.yml:6: Net.backbone is required; name one of BackboneA, BackboneB, Head, Net",
        "base.yml:6: Net.head is required; name one of Head",
    )


def test_one_part_in_two_places_takes_its_knobs_once(tmp_path: Path) -> None:
    (found,) = faults(
        write(
            tmp_path,
            "__include__: base.yml\nNet: {backbone: {type: Head, rate: 2}, head: {type: Head, rate: 3}}\n",
        )
    )
    assert found == "run.yml:2: Net.head: Head is in use already; write its knobs once"


def test_a_protocol_admits_every_component_and_a_function_can_be_one(tmp_path: Path) -> None:
    def build(backbone: Shaped, head: Callable[[int], int], *, scale: float = 1.0) -> object: ...

    path = write(tmp_path, "__include__: base.yml\nNet: {scale: 2}\n")
    exp = load_experiment(path, components={**COMPONENTS, "Net": build}, transforms=TRANSFORMS)
    assert exp.components["Net"] == {"scale": 2.0}
    assert exp.wiring["Net"] == {"backbone": "BackboneA", "head": "Head"}
