import pytest

from src.core.overrides import apply_override
from src.core.problems import ConfigError, Place, Problems
from src.core.schema import plain
from src.core.yaml_tree import Section, read_text

BASE = "a: {b: 1, c: [10, {d: 2}]}\ne: ~\nname: X\nkind: {type: A, x: 1}"


def tree() -> Section:
    node = read_text(BASE, Place("base.yml", 1, own=False), Problems())
    assert isinstance(node, Section)
    return node


def apply(text: str) -> object:
    problems = Problems()
    changed = apply_override(tree(), text, problems)
    problems.raise_any()
    return plain(changed)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a.b=1e-4", ("a", "b"), 1e-4),
        ("a.b = True", None, None),
        ("a.c.0=7", ("a", "c", 0), 7),
        ("a.c.1.d=text", ("a", "c", 1, "d"), "text"),
        ("a.c=[1]", ("a", "c"), (1,)),
        ("a={b: 5}", ("a", "b"), 5),
        ("new.deep.key=1", ("new", "deep", "key"), 1),
        ("e.x=1", ("e", "x"), 1),
        ("name=", ("name",), None),
        ("name=k=v", ("name",), "k=v"),
    ],
)
def test_an_override_puts_a_yaml_value_at_its_path(
    text: str, path: tuple[str | int, ...] | None, value: object
) -> None:
    got = apply(text)
    for key in path or ("a", "b"):
        got = got[key]  # type: ignore[index]
    assert got == (value if path else True)


def test_everything_else_stays() -> None:
    assert apply("a.c.1.d=3") == {
        "a": {"b": 1, "c": (10, {"d": 3})},
        "e": None,
        "name": "X",
        "kind": {"type": "A", "x": 1},
    }
    assert apply("a={z: 1}")["a"] == {"b": 1, "c": (10, {"d": 2}), "z": 1}  # type: ignore[index]


def test_another_type_takes_the_old_knobs_away() -> None:
    assert apply("kind.type=B")["kind"] == {"type": "B"}  # type: ignore[index]
    assert apply("kind.type=A")["kind"] == {"type": "A", "x": 1}  # type: ignore[index]


def test_what_an_override_writes_is_the_users_own() -> None:
    changed = apply_override(tree(), "a.b=2", Problems())
    assert changed.entries["a"].place == Place("-u a.b=2", None, own=True)
    assert not changed.entries["name"].place.own


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a.b", "-u a.b: an override is written key=value"),
        ("=1", "-u =1: an override is written key=value"),
        ("a..b=1", "-u a..b=1: an override is written key=value"),
        ("a.c.2=1", "-u a.c.2=1: a.c is a list of 2; write its index, from 0, not '2'"),
        ("a.c.-1=1", "-u a.c.-1=1: a.c is a list of 2"),
        ("a.c.d=1", "-u a.c.d=1: a.c is a list of 2"),
        ("name.x=1", "-u name.x=1: name is the value 'X'; it has no key 'x'"),
        ("a.b=[1", "-u a.b=[1: not valid YAML"),
        ("a={b: 1, b: 2}", "-u a={b: 1, b: 2}: the key 'b' stands twice"),
    ],
)
def test_a_faulty_override_is_named_and_changes_nothing(text: str, fault: str) -> None:
    problems = Problems()
    before = tree()
    changed = apply_override(before, text, problems)
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    assert str(caught.value).startswith(fault)
    assert plain(changed) == plain(before) or "twice" in fault
