from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from src.core.bounds import Bounds
from src.core.problems import ConfigError, Place, Problems
from src.core.schema import INVALID, Binder, describe, parameters_of
from src.core.yaml_tree import Node, Section, read_text


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    mode: Literal["fast", "slow"] = "fast"


class Part:
    def __init__(
        self, levels: tuple[int, ...], *, width: int = 4, rate: float, inner: Inner | None = None
    ) -> None:
        pass


def node(text: str) -> Node:
    read = read_text(text, Place("f.yml", 1), Problems())
    assert read is not None
    return read


def bind(text: str, hint: Any) -> Any:
    problems = Problems()
    value = Binder(problems).value(node(text), hint, "key")
    problems.raise_any()
    return value


def faults(text: str, hint: Any) -> str:
    problems = Problems()
    assert Binder(problems).value(node(text), hint, "key") is INVALID
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-4", float, 1e-4),
        ("True", bool, True),
        ("x", str, "x"),
        ("~", int | None, None),
        ("3", int | None, 3),
        ("3", float | int, 3),
        ("3", int | float, 3),
        ("3", float | str, 3.0),
        ("a", Literal["a", 1], "a"),
        ("all", Literal["frozen", "all"] | int | None, "all"),
        ("4", Literal["frozen", "all"] | int | None, 4),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("[]", tuple[int, ...], ()),
        ("[1, 2]", tuple[float, int], (1.0, 2)),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, 2]", Sequence[float], (1.0, 2.0)),
        ("[[1], [2, 3]]", tuple[tuple[int, ...], ...], ((1,), (2, 3))),
        ("[1, x]", tuple, (1, "x")),
        ("{a: 1, b: 2.5}", Mapping[str, float], {"a": 1.0, "b": 2.5}),
        ("{a: [1]}", dict[str, tuple[int, ...]], {"a": (1,)}),
        ("{size: 3}", Inner, Inner(size=3)),
        ("{size: 3, mode: slow}", Inner | None, Inner(size=3, mode="slow")),
        ("[{size: 1}, {size: 2}]", tuple[Inner, ...], (Inner(size=1), Inner(size=2))),
        ("7", Annotated[int, Bounds(low=1)], 7),
        ("0", Annotated[float, Bounds(low=0, below=1)], 0.0),
        ("{a: [1, {b: c}]}", Any, {"a": (1, {"b": "c"})}),
    ],
)
def test_values_take_the_hinted_type(text: str, hint: Any, value: object) -> None:
    got = bind(text, hint)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "fault"),
    [
        ("True", int, "f.yml:1: key must be a whole number, not true"),
        ("True", float, "f.yml:1: key must be a number, not true"),
        ("1", bool, "f.yml:1: key must be true or false, not 1"),
        ("yes", bool, "f.yml:1: key must be true or false, not the text 'yes'"),
        ("3.0", int, "f.yml:1: key must be a whole number, not 3.0"),
        ("'3'", int, "f.yml:1: key must be a whole number, not the text '3'"),
        ("~", int, "f.yml:1: key must be a whole number, not null"),
        ("3", str, "f.yml:1: key must be text, not 3 (put it in quotes)"),
        (".nan", float, "f.yml:1: key must be a finite number, not nan"),
        (".inf", float, "f.yml:1: key must be a finite number, not inf"),
        ("1e999", float, "f.yml:1: key must be a finite number, not inf"),
        ("x", int | None, "f.yml:1: key must be a whole number or null, not the text 'x'"),
        ("c", Literal["a", "b"], "f.yml:1: key must be a | b, not the text 'c'"),
        ("True", Literal[1], "f.yml:1: key must be 1, not true"),
        ("3", tuple[int, ...], "f.yml:1: key must be a list of a whole number, not 3"),
        ("[1, 2, 3]", tuple[int, int], "f.yml:1: key must have 2 values, not 3"),
        ("[1,\n x]", tuple[int, ...], "f.yml:2: key.1 must be a whole number, not the text 'x'"),
        ("[1,\n x]", tuple[int, ...] | None, "f.yml:2: key.1 must be a whole number, not the text 'x'"),
        ("{a: x}", Mapping[str, float], "f.yml:1: key.a must be a number, not the text 'x'"),
        ("[a]", Mapping[str, float], "f.yml:1: key must be a mapping, not a list"),
        ("{a: 1}", int, "f.yml:1: key must be a whole number, not a mapping"),
        ("3", Inner, "f.yml:1: key must be a mapping, not 3"),
        ("{mode: fast}", Inner, "f.yml:1: key.size is required and not given"),
        ("{size: x}", Inner | None, "f.yml:1: key.size must be a whole number, not the text 'x'"),
        ("0", Annotated[int, Bounds(low=1)], "f.yml:1: key must be at least 1, not 0"),
        (
            "1",
            Annotated[float, Bounds(low=0, below=1)],
            "f.yml:1: key must be at least 0 and below 1, not 1.0",
        ),
        ("0.", Annotated[float, Bounds(above=0)] | None, "f.yml:1: key must be above 0, not 0.0"),
        (
            "2",
            Annotated[float, Bounds(low=0, high=1)],
            "f.yml:1: key must be at least 0 and at most 1, not 2.0",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(text: str, hint: Any, fault: str) -> None:
    assert faults(text, hint) == fault


def test_all_faults_of_a_section_are_found_at_once() -> None:
    section = node("widht: 3\nwidth: x\nlevels: [1]\ninner:\n  size: 1\n  mood: slow\n")
    problems = Problems()
    assert isinstance(section, Section)
    assert Binder(problems).arguments(section, Part, "Part") is INVALID
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    assert caught.value.problems == (
        "f.yml:1: unknown key Part.widht; did you mean 'width'?",
        "f.yml:1: Part.rate is required and not given",
        "f.yml:2: Part.width must be a whole number, not the text 'x'",
        "f.yml:3: Part.levels is set by the program, not by the YAML; delete the key",
        "f.yml:6: unknown key Part.inner.mood; did you mean 'mode'?",
    )


def test_what_is_given_is_bound_and_defaults_stay_in_the_signature() -> None:
    section = node("{rate: 1, inner: {size: 2}}")
    assert isinstance(section, Section)
    assert Binder(Problems()).arguments(section, Part, "Part") == {"rate": 1.0, "inner": Inner(size=2)}


def test_a_key_without_a_near_one_lists_what_is_known() -> None:
    section = node("{rate: 1, qqq: 2}")
    problems = Problems()
    assert isinstance(section, Section)
    Binder(problems).arguments(section, Part, "Part")
    with pytest.raises(ConfigError, match="unknown key Part.qqq; known: inner, rate, width"):
        problems.raise_any()


def test_parameters_tell_knobs_from_what_code_wires() -> None:
    def build(a: int, *args: int, b: "float" = 1, c: str, **kwargs: int) -> None: ...

    found = parameters_of(build)
    assert list(found) == ["a", "b", "c"]
    assert [p.knob for p in found.values()] == [False, True, True]
    assert [p.required for p in found.values()] == [True, False, True]
    assert found["b"].hint is float


def test_a_knob_without_a_hint_is_our_own_error() -> None:
    def build(*, a=1) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(TypeError, match="no type hint for the knob 'a'"):
        parameters_of(build)
    with pytest.raises(TypeError, match="has no form in YAML"):
        bind("1", complex)


def test_a_hint_in_words() -> None:
    assert describe(Literal["frozen", "all"] | Annotated[int, Bounds(low=1)] | None) == (
        "frozen | all or a whole number or null"
    )


def test_an_own_rule_binds_its_type() -> None:
    binder = Binder(Problems(), {Inner: lambda _binder, _node, path: path})
    assert binder.value(node("[1, 2]"), tuple[Inner, ...] | None, "k") == ("k.0", "k.1")
