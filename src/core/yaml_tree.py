"""A strict reader of YAML that remembers the file and line of every key and value."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from .problems import Place, Problems

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000

# YAML 1.2's numbers: `1e-4` is a float, `yes` and `012` are text.
_TAG = "tag:yaml.org,2002:"
SCALAR_TAGS = {
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30}|0x[0-9a-fA-F]{1,16})\Z"),
    "float": re.compile(
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))\Z"
        r"|\.(?:nan|NaN|NAN)\Z"
    ),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
}
_FIRST_LETTERS = {
    "int": "-+0123456789",
    "float": "-+.0123456789",
    "bool": "tTfF",
    "null": ["~", "n", "N", ""],
}


@dataclass(frozen=True)
class Scalar:
    """One value."""

    value: str | int | float | bool | None
    place: Place


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple["Node", ...]
    place: Place


class Entry(NamedTuple):
    """A key's place, and its value."""

    place: Place
    node: "Node"


@dataclass(frozen=True)
class Section:
    """A mapping, in the order in which it was written."""

    entries: dict[str, Entry]
    place: Place


Node = Scalar | Items | Section


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with YAML 1.2's scalars, and a limit to nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]  # as PyYAML's stubs have it
            )
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def add_scalars(resolver: type[yaml.resolver.Resolver]) -> None:
    """Teaches a loader or dumper of PyYAML's what is a number, a truth value or null here."""
    for name, pattern in SCALAR_TAGS.items():
        resolver.add_implicit_resolver(_TAG + name, pattern, list(_FIRST_LETTERS[name]))


add_scalars(_Loader)


def read_text(text: str, place: Place, problems: Problems) -> Node | None:
    """The tree of one YAML document; None where it cannot be parsed, which is noted in `problems`.

    Args:
        text: The document.
        place: Where it starts: the lines of a file count from its line, an override has none.
        problems: Takes the faults.
    """
    try:
        # The loader itself, since yaml.compose() would read the marks but not our scalars.
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if place.line is None or mark is None else mark.line + 1
        problems.add(place._replace(line=line), f"not valid YAML: {error.problem or error.context}")
        return None
    except yaml.YAMLError as error:
        problems.add(place, f"not valid YAML: {str(error).splitlines()[0]}")
        return None
    if root is None:
        return Scalar(None, place)
    return _Converter(place, problems).convert(root)


def read_file(path: Path, name: str, *, own: bool, problems: Problems) -> Section | None:
    """The mapping that a file holds; None, and a note in `problems`, where it holds none.

    Args:
        path: The file.
        name: How messages call it.
        own: Whether it is the file that the user named.
        problems: Takes the faults.
    """
    place = Place(name, 1, own)
    text = _read_utf8(path, place, problems)
    if text is None:
        return None
    node = read_text(text, place, problems)
    if isinstance(node, Section):
        return node
    if isinstance(node, Scalar) and node.value is None:
        return Section({}, place)
    if node is not None:
        problems.add(node.place, "a configuration is a mapping `key: value`")
    problems.blocked = True
    return None


def _read_utf8(path: Path, place: Place, problems: Problems) -> str | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return data.decode("utf-8-sig")
        problems.block(place, f"is larger than {MAX_BYTES} bytes; a configuration is smaller")
    except OSError as error:
        problems.block(place._replace(line=None), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.block(place._replace(line=data.count(b"\n", 0, error.start) + 1), "is not UTF-8 text")
    return None


class _Converter:
    """Turns PyYAML's nodes into ours; aliases are expanded, up to a size."""

    def __init__(self, origin: Place, problems: Problems) -> None:
        self._origin = origin
        self._problems = problems
        self._count = 0

    def convert(self, node: yaml.Node, depth: int = 0) -> Node:
        """The tree below `node`."""
        place = self._place(node)
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            self._problems.add(
                self._origin, f"too large: more than {MAX_NODES} values or {MAX_DEPTH} levels (aliases?)"
            )
            return Scalar(None, place)
        if isinstance(node, yaml.MappingNode):
            return self._section(node, place, depth)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, place, "seq")
            return Items(tuple(self.convert(item, depth + 1) for item in node.value), place)
        return Scalar(self._value(node, place), place)

    def _place(self, node: yaml.Node) -> Place:
        if self._origin.line is None:
            return self._origin
        return self._origin._replace(line=node.start_mark.line + 1)

    def _check_tag(self, node: yaml.Node, place: Place, *allowed: str) -> None:
        if node.tag not in {_TAG + name for name in allowed}:
            self._problems.add(
                place, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed; write a plain value"
            )

    def _section(self, node: yaml.MappingNode, place: Place, depth: int) -> Section:
        self._check_tag(node, place, "map")
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            key_place = self._place(key)
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(key_place, "a key must be text, not a list or a mapping")
            elif key.value == "<<":
                self._problems.add(
                    key_place, "`<<` is not supported; put what is common into a file and `__include__` it"
                )
            elif key.value in entries:
                first = entries[key.value].place
                self._problems.add(
                    key_place, f"the key '{key.value}' stands twice, first at {first}; delete one"
                )
            else:
                entries[key.value] = Entry(key_place, self.convert(value, depth + 1))
        return Section(entries, place)

    def _value(self, node: yaml.Node, place: Place) -> str | int | float | bool | None:
        text: str = node.value
        self._check_tag(node, place, "str", *SCALAR_TAGS)
        kind = node.tag.removeprefix(_TAG)
        if kind not in SCALAR_TAGS:
            return text
        if not SCALAR_TAGS[kind].match(text):  # an explicit tag such as `!!int x`
            self._problems.add(place, f"'{text}' is not of type {kind}")
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text.replace("_", ""), 0)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def merge(base: Node | None, overlay: Node) -> Node:
    """`overlay` on top of `base`: mappings merge key by key, everything else replaces.

    A mapping whose `type` differs from the base's replaces it whole, so that no knob of another
    kind stays behind.
    """
    if not isinstance(base, Section) or not isinstance(overlay, Section):
        return overlay
    if _kind(base) is not None and _kind(overlay) not in (None, _kind(base)):
        return overlay
    entries = dict(base.entries)
    for key, entry in overlay.entries.items():
        below = entries[key].node if key in entries else None
        entries[key] = Entry(entry.place, merge(below, entry.node))
    return Section(entries, overlay.place)


def _kind(section: Section) -> object:
    entry = section.entries.get("type")
    return entry.node.value if entry is not None and isinstance(entry.node, Scalar) else None
