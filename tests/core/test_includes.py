from pathlib import Path

import pytest

from src.core.includes import MAX_FILES, read_config
from src.core.problems import ConfigError, Problems
from src.core.schema import plain


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(path: Path) -> object:
    problems = Problems()
    tree = read_config(path, problems)
    problems.raise_any()
    assert tree is not None
    return plain(tree)


def faults(path: Path) -> list[str]:
    problems = Problems()
    read_config(path, problems)
    assert problems.blocked
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    return list(caught.value.problems)


def test_includes_merge_in_order_and_the_file_itself_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        first="a: 1\nb: 1\nc: 1\nd: {x: 1, y: 1}",
        sub__second="__include__: third.yml\nb: 2\nc: 2\nd: {y: 2}",
        sub__third="e: 3\nb: 3",
        main="b: 9\n__include__: ['first.yml', 'sub/second.yml']\nc: 4",
    )
    assert read(tmp_path / "main.yml") == {"a": 1, "b": 9, "c": 4, "d": {"x": 1, "y": 2}, "e": 3}


def test_a_file_may_be_included_twice_over_two_ways(tmp_path: Path) -> None:
    write(tmp_path, base="a: 1", x="__include__: base.yml\nx: 1", y="__include__: base.yml\ny: 1")
    write(tmp_path, main="__include__: [x.yml, y.yml]")
    assert read(tmp_path / "main.yml") == {"a": 1, "x": 1, "y": 1}


def test_only_the_file_itself_counts_as_the_users_own(tmp_path: Path) -> None:
    write(tmp_path, base="a: 1\nb: {x: 1}", main="__include__: base.yml\nb: {y: 1}")
    tree = read_config(tmp_path / "main.yml", Problems())
    assert tree is not None
    assert not tree.entries["a"].place.own
    assert tree.entries["b"].place.own


def test_an_include_circle_shows_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a="__include__: b.yml", b="x: 1\n__include__: c.yml", c="__include__: b.yml")
    assert faults(tmp_path / "a.yml") == ["c.yml:1: include circle: b.yml -> c.yml -> b.yml"]
    write(tmp_path, a="__include__: a.yml")
    assert faults(tmp_path / "a.yml") == ["a.yml:1: include circle: a.yml -> a.yml"]


def test_missing_and_broken_includes_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, main="__include__:\n  - no.yml\n  - .\n  - bad.yml", bad="a: [")
    assert faults(tmp_path / "main.yml") == [
        "main.yml:2: no.yml does not exist",
        "main.yml:3: . is not a file",
        "bad.yml:1: not valid YAML: expected the node content, but found '<stream end>'",
    ]


def test_a_missing_configuration_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert faults(Path("none.yml")) == ["none.yml: does not exist"]


@pytest.mark.parametrize("value", ["3", "[a.yml, 3]", "{a: b}", "~"])
def test_an_include_is_a_path_or_a_list_of_paths(tmp_path: Path, value: str) -> None:
    write(tmp_path, a="", main=f"__include__: {value}")
    problems = Problems()
    read_config(tmp_path / "main.yml", problems)
    with pytest.raises(ConfigError, match=r"main\.yml:1: __include__ takes a path or a list of paths"):
        problems.raise_any()


def test_includes_that_multiply_are_stopped(tmp_path: Path) -> None:
    for index in range(12):
        write(tmp_path, **{f"f{index}": f"__include__: [f{index + 1}.yml, f{index + 1}.yml]"})
    write(tmp_path, f12="a: 1")
    assert any(f"more than {MAX_FILES} files" in fault for fault in faults(tmp_path / "f0.yml"))
