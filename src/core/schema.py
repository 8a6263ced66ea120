"""Binds a mapping of the YAML to the keyword-only parameters of a class: the signature is the schema."""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from .bounds import Bounds
from .problems import Problems, nearest
from .renamed import advice
from .yaml_tree import Items, Node, Scalar, Section


class Invalid:
    """Stands for a value that was refused; why is among the problems."""


INVALID = Invalid()


class Parameter(NamedTuple):
    """One parameter of a class.

    Attributes:
        hint: Its type.
        required: Whether it has no default.
        knob: Whether it is keyword-only, so that the YAML may set it.
    """

    hint: Any
    required: bool
    knob: bool


def parameters_of(target: Callable[..., object]) -> dict[str, Parameter]:
    """The named parameters of a class or function.

    Raises:
        TypeError: A keyword-only parameter has no type hint: an error in our own code.
    """
    function = inspect.getattr_static(target, "__init__") if isinstance(target, type) else target
    hints = get_type_hints(function, include_extras=True)
    named: dict[str, Parameter] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        knob = parameter.kind is parameter.KEYWORD_ONLY
        if knob and name not in hints:
            raise TypeError(f"{target} has no type hint for the knob '{name}'")
        named[name] = Parameter(hints.get(name, Any), parameter.default is parameter.empty, knob)
    return named


Rule = Callable[["Binder", Node, str], Any]


class Binder:
    """Turns nodes into values of a hinted type; what does not fit goes to the problems.

    Args:
        problems: Takes the faults.
        rules: Own ways to bind a type, tried before the general ones.
    """

    def __init__(self, problems: Problems, rules: Mapping[Any, Rule] | None = None) -> None:
        self.problems = problems
        self.rules = dict(rules or {})

    def arguments(
        self, section: Section, target: Callable[..., object], path: str, *, ignore: Sequence[str] = ()
    ) -> dict[str, Any] | Invalid:
        """The keyword arguments that a section gives to `target`.

        Args:
            section: The keys and their values.
            target: Class or function whose keyword-only parameters are allowed.
            path: How messages call the section; empty at the top.
            ignore: Parameters that the YAML may not set though they are keyword-only.

        Returns:
            The arguments that were given, of the hinted types; INVALID where one was refused.
        """
        before = len(self.problems)
        bound = self.partial(section, target, path, ignore=ignore)
        return bound if len(self.problems) == before else INVALID

    def partial(
        self, section: Section, target: Callable[..., object], path: str, *, ignore: Sequence[str] = ()
    ) -> dict[str, Any]:
        """As `arguments`, but the ones that fit are given though others were refused."""
        parameters = parameters_of(target)
        knobs = {name: p for name, p in parameters.items() if p.knob and name not in ignore}
        bound: dict[str, Any] = {}
        for key, (place, node) in section.entries.items():
            if key in knobs:
                bound[key] = self.value(node, knobs[key].hint, join(path, key))
            else:
                self.problems.add(place, _unknown(path, key, parameters, knobs))
        for name, parameter in knobs.items():
            if parameter.required and name not in section.entries:
                self.problems.add(section.place, f"{join(path, name)} is required and not given")
        return {key: value for key, value in bound.items() if value is not INVALID}

    def value(self, node: Node, hint: Any, path: str) -> Any:
        """The value of `node` as `hint` wants it; INVALID, and a note, where it does not fit."""
        return self._way(hint)(node, hint, path)

    def _way(self, hint: Any) -> Callable[[Node, Any, str], Any]:
        origin = get_origin(hint) or hint
        by_origin: dict[Any, Callable[[Node, Any, str], Any]] = {
            Annotated: self._bounded,
            Union: self._any_of,
            types.UnionType: self._any_of,
            Literal: self._choice,
            tuple: self._list,
            list: self._list,
            Sequence: self._list,
            dict: self._mapping,
            Mapping: self._mapping,
        }
        if origin in self.rules:
            return lambda node, _, path: self.rules[origin](self, node, path)
        if origin in by_origin:
            return by_origin[origin]
        return self._dataclass if is_dataclass(hint) else self._scalar

    def _choice(self, node: Node, hint: Any, path: str) -> Any:
        for choice in get_args(hint):
            if isinstance(node, Scalar) and type(node.value) is type(choice) and node.value == choice:
                return choice
        return self._refuse(node, hint, path)

    def _scalar(self, node: Node, hint: Any, path: str) -> Any:
        if hint is Any:
            return plain(node)
        if hint not in (bool, int, float, str, type(None)):
            raise TypeError(f"{path}: the hint {hint} has no form in YAML")
        if not isinstance(node, Scalar):
            return self._refuse(node, hint, path)
        value = node.value
        if hint is float and type(value) in (int, float):
            number = float(value)  # type: ignore[arg-type]  # type() narrows it, which mypy does not see
            if number - number != 0:
                self.problems.add(node.place, f"{path} must be a finite number, not {value}")
                return INVALID
            return number
        return value if type(value) is hint else self._refuse(node, hint, path)

    def _bounded(self, node: Node, hint: Any, path: str) -> Any:
        inner, *extras = get_args(hint)
        value = self.value(node, inner, path)
        for bounds in extras:
            if isinstance(bounds, Bounds) and isinstance(value, int | float) and not bounds.admits(value):
                self.problems.add(node.place, f"{path} must be {bounds}, not {value}")
                return INVALID
        return value

    def _any_of(self, node: Node, hint: Any, path: str) -> Any:
        """The first choice that fits; where none does, the faults of the only one of the node's own kind."""
        choices = get_args(hint)
        exact = sorted(choices, key=lambda choice: not _is_exactly(node, choice))
        for choice in exact:
            trial = Binder(Problems(), self.rules)
            value = trial.value(node, choice, path)
            if not len(trial.problems):
                return value
        alike = [choice for choice in choices if _has_shape(node, choice)]
        if len(alike) == 1:
            return self.value(node, alike[0], path)
        return self._refuse(node, hint, path)

    def _dataclass(self, node: Node, hint: Any, path: str) -> Any:
        if not isinstance(node, Section):
            return self._refuse(node, hint, path)
        arguments = self.arguments(node, hint, path)
        return INVALID if isinstance(arguments, Invalid) else hint(**arguments)

    def _list(self, node: Node, hint: Any, path: str) -> Any:
        kind, inner = get_origin(hint) or hint, get_args(hint)
        if not isinstance(node, Items):
            return self._refuse(node, hint, path)
        hints = [inner[0] if inner else Any] * len(node.items)
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            if len(inner) != len(node.items):
                self.problems.add(node.place, f"{path} must have {len(inner)} values, not {len(node.items)}")
                return INVALID
            hints = list(inner)
        values = [
            self.value(item, item_hint, f"{path}.{index}")
            for index, (item, item_hint) in enumerate(zip(node.items, hints, strict=True))
        ]
        if any(value is INVALID for value in values):
            return INVALID
        return values if kind is list else tuple(values)

    def _mapping(self, node: Node, hint: Any, path: str) -> Any:
        if not isinstance(node, Section):
            return self._refuse(node, hint, path)
        inner = get_args(hint)[1] if get_args(hint) else Any
        values = {key: self.value(entry.node, inner, join(path, key)) for key, entry in node.entries.items()}
        return INVALID if any(value is INVALID for value in values.values()) else values

    def _refuse(self, node: Node, hint: Any, path: str) -> Invalid:
        quote = " (put it in quotes)" if describe(hint) == "text" and isinstance(node, Scalar) else ""
        self.problems.add(node.place, f"{path} must be {describe(hint)}, not {_shown(node)}{quote}")
        return INVALID


def _unknown(path: str, key: str, parameters: Mapping[str, Parameter], knobs: Mapping[str, Parameter]) -> str:
    full = join(path, key)
    other = advice(full)
    if other is not None:
        return f"{full} is not a key here: {other}"
    if key in parameters and key not in knobs:
        return f"{full} is set by the program, not by the YAML; delete the key"
    return f"unknown key {full}; {nearest(key, knobs)}"


def join(path: str, key: str) -> str:
    """The dotted path of a key."""
    return f"{path}.{key}" if path else key


def plain(node: Node) -> Any:
    """The node as Python's own dicts, tuples and scalars."""
    if isinstance(node, Section):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    return tuple(plain(item) for item in node.items) if isinstance(node, Items) else node.value


def describe(hint: Any) -> str:
    """A hint in words that a reader of YAML knows."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if isinstance(hint, type) and hint in names:
        return names[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe(inner[0])
    if origin is Literal:
        return " | ".join(str(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(choice) for choice in inner)
    if (origin or hint) in (tuple, list, Sequence):
        return f"a list of {describe(inner[0])}" if inner and inner[0] is not Any else "a list"
    return "a mapping"


def _shown(node: Node) -> str:
    if not isinstance(node, Scalar):
        return "a list" if isinstance(node, Items) else "a mapping"
    if node.value is None or isinstance(node.value, bool):
        return {None: "null", True: "true", False: "false"}[node.value]
    return f"the text '{node.value}'" if isinstance(node.value, str) else f"{node.value}"


def _is_exactly(node: Node, hint: Any) -> bool:
    """Whether a scalar is of just this type, so that `int | float` keeps an int and `float | int` too."""
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return isinstance(node, Scalar) and type(node.value) is base


def _has_shape(node: Node, hint: Any) -> bool:
    """Whether a hint is of the node's own kind: list, mapping or scalar of that type."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _has_shape(node, get_args(hint)[0])
    if isinstance(node, Scalar):
        return _is_exactly(node, hint) or (hint is float and type(node.value) is int)
    if isinstance(node, Items):
        return (origin or hint) in (tuple, list, Sequence)
    return (origin or hint) in (dict, Mapping) or (isinstance(hint, type) and is_dataclass(hint))
