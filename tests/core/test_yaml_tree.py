from pathlib import Path

import pytest

from src.core.problems import ConfigError, Place, Problems
from src.core.schema import plain
from src.core.yaml_tree import MAX_BYTES, MAX_DEPTH, Items, Scalar, Section, merge, read_file, read_text

HERE = Place("a.yml", 1)


def read(text: str) -> object:
    problems = Problems()
    node = read_text(text, HERE, problems)
    problems.raise_any()
    assert node is not None
    return plain(node)


def faults(text: str) -> list[str]:
    problems = Problems()
    read_text(text, HERE, problems)
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("2.5e-4", 2.5e-4),
        ("-1e+3", -1000.0),
        (".5", 0.5),
        ("0.", 0.0),
        ("-1", -1),
        ("+7", 7),
        ("0", 0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("012", "012"),
        ("True", True),
        ("false", False),
        ("yes", "yes"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("1e", "1e"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    got = read(text)
    assert got == value
    assert type(got) is type(value)


def test_every_key_and_value_knows_its_line() -> None:
    node = read_text("a: 1\nb:\n  c: [1,\n      2]\n", HERE, Problems())
    assert isinstance(node, Section)
    b = node.entries["b"]
    assert str(b.place) == "a.yml:2"
    assert isinstance(b.node, Section)
    c = b.node.entries["c"]
    assert isinstance(c.node, Items)
    assert [str(item.place) for item in c.node.items] == ["a.yml:3", "a.yml:4"]


def test_a_duplicate_key_names_both_lines_and_nested_ones_are_found_at_once() -> None:
    assert faults("a: 1\nb: {x: 1, x: 2}\na: 3\n") == [
        "a.yml:2: the key 'x' stands twice, first at a.yml:2; delete one",
        "a.yml:3: the key 'a' stands twice, first at a.yml:1; delete one",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1", "a.yml:1: not valid YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2", "a.yml:2: not valid YAML"),
        ("a: *nowhere", "a.yml:1: not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", "a.yml:2: not valid YAML"),
        ("a: !!python/name:os.system x", "a.yml:1: the tag !!python/name:os.system is not allowed"),
        ("a: 1\nb: !thing {x: 1}", "a.yml:2: the tag !thing is not allowed"),
        ("a: !!set {x}", "a.yml:1: the tag !!set is not allowed"),
        ("a: !!int x", "a.yml:1: 'x' is not of type int"),
        ("a: !!bool maybe", "a.yml:1: 'maybe' is not of type bool"),
        ("b: &b {x: 1}\na: {<<: *b}", "a.yml:2: `<<` is not supported"),
        ("? [1]\n: 2", "a.yml:1: a key must be text"),
        ("a: \x01", "a.yml:1: not valid YAML"),
    ],
)
def test_what_is_not_a_configuration_is_refused_with_its_line(text: str, fault: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_an_alias_repeats_a_value() -> None:
    assert read("a: &x [1, 2]\nb: *x") == {"a": (1, 2), "b": (1, 2)}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "a: &a [*a]",
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]),
    ],
    ids=["open brackets", "deep", "recursive alias", "a billion laughs"],
)
def test_trees_without_end_are_refused(text: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert "nested deeper" in found[0] or "too large" in found[0]


def test_a_merge_is_deep_for_mappings_and_replaces_lists_and_scalars() -> None:
    base = read_text("a: {x: 1, y: [1, 2]}\nb: 1", HERE, Problems())
    over = read_text("a: {y: [3], z: 4}\nc: ~", Place("b.yml", 1), Problems())
    assert base is not None
    assert over is not None
    merged = merge(base, over)
    assert plain(merged) == {"a": {"x": 1, "y": (3,), "z": 4}, "b": 1, "c": None}
    assert isinstance(merged, Section)
    assert [entry.place.source for entry in merged.entries.values()] == ["b.yml", "a.yml", "b.yml"]
    assert plain(merge(None, over)) == plain(over)


def test_a_mapping_of_another_type_replaces_the_whole_mapping() -> None:
    base = read_text("{type: A, x: 1}", HERE, Problems())
    same = read_text("{type: A, y: 2}", HERE, Problems())
    other = read_text("{type: B, y: 2}", HERE, Problems())
    assert same is not None
    assert other is not None
    assert plain(merge(base, same)) == {"type": "A", "x": 1, "y": 2}
    assert plain(merge(base, other)) == {"type": "B", "y": 2}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"- 1\n", "f.yml:1: a configuration is a mapping"),
        (b"a: 1\nb: \xff\n", "f.yml:2: is not UTF-8 text"),
        (b"#" * (MAX_BYTES + 1), "f.yml:1: is larger than"),
    ],
)
def test_files_that_hold_no_mapping(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(content)
    problems = Problems()
    assert read_file(path, "f.yml", own=True, problems=problems) is None
    assert problems.blocked
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    assert str(caught.value).startswith(fault)


def test_an_empty_file_is_an_empty_mapping_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(b"# nothing\n")
    empty = read_file(path, "f.yml", own=True, problems=Problems())
    assert empty == Section({}, Place("f.yml", 1))
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    marked = read_file(path, "f.yml", own=False, problems=Problems())
    assert marked is not None
    assert marked.entries["a"].node == Scalar(1, Place("f.yml", 1, own=False))
