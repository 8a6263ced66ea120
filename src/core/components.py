"""The sections named after classes: which of them the experiment uses, and with which arguments."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, get_origin

from .problems import Place, Problems, nearest
from .schema import Binder, Invalid, join, parameters_of
from .yaml_tree import Entry, Node, Scalar, Section, merge

logger = logging.getLogger(__name__)

Factory = Callable[..., object]


class Reached:
    """The components that the experiment uses.

    A key of a section that is a positional parameter of its class names another component, by its name or by
    a mapping of `type` and that component's knobs, which merge over its own section.

    Args:
        sections: The sections as written, by component.
        components: Every class that a section may be named after.
        problems: Takes the faults.

    Attributes:
        arguments: Keyword arguments of each component reached.
        wiring: Which component fills a positional parameter of another.
    """

    def __init__(
        self, sections: Mapping[str, Entry], components: Mapping[str, Factory], problems: Problems
    ) -> None:
        self._sections = sections
        self._components = components
        self._problems = problems
        self._lost = False
        self.arguments: dict[str, dict[str, Any]] = {}
        self.wiring: dict[str, dict[str, str]] = {}

    def visit(self, name: str, place: Place, path: str, inline: Section | None = None) -> None:
        """Binds a component that `path` names, and those that it names in turn."""
        if name not in self._components:
            self._lose(place, f"{path} names no component '{name}'; {nearest(name, self._components)}")
            return
        if name in self.arguments:
            if inline is not None:
                self._problems.add(place, f"{path}: {name} is in use already; write its knobs once")
            return
        written: Node = self._sections[name].node if name in self._sections else Section({}, place)
        node = merge(written, inline) if inline is not None else written
        if not isinstance(node, Section):
            self._lose(node.place, f"{name} must be a mapping of its knobs; `{name}: {{}}` for none")
            return
        self.arguments[name] = {}
        factory = self._components[name]
        positional = {key for key, parameter in parameters_of(factory).items() if not parameter.knob}
        knobs: dict[str, Entry] = {}
        for key, entry in node.entries.items():
            if key in positional and self._wire(name, key, entry):
                continue
            knobs[key] = entry
        self._require_parts(name, node)
        bound = Binder(self._problems).arguments(Section(knobs, node.place), factory, name)
        self.arguments[name] = {} if isinstance(bound, Invalid) else bound

    def check_unused(self, roots: str) -> None:
        """Refuses sections that the user wrote for nothing; those of an include are left out with a note."""
        if self._lost:  # what a wrong name would have reached is not known
            return
        for name, (place, _) in self._sections.items():
            if name in self.arguments:
                continue
            if place.own:
                self._problems.add(
                    place,
                    f"nothing uses the section {name}; in use: {', '.join(sorted(self.arguments))} ({roots})",
                )
            else:
                logger.info("%s: the section %s is not used and left out", place, name)

    def _lose(self, place: Place, message: str) -> None:
        self._problems.add(place, message)
        self._lost = True

    def _wire(self, owner: str, key: str, entry: Entry) -> bool:
        """Takes a key that names a component; False where its value cannot be one."""
        path = join(owner, key)
        node, inline = entry.node, None
        if isinstance(node, Section) and "type" in node.entries:
            inline = Section({k: e for k, e in node.entries.items() if k != "type"}, node.place)
            node = node.entries["type"].node
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            if not self._fitting(owner, key):
                return False
            self._lose(
                entry.node.place,
                f"{path} must be a component's name, or a mapping with `type:` and its knobs",
            )
            return True
        fitting = self._fitting(owner, key)
        if node.value in self._components and fitting and node.value not in fitting:
            self._lose(node.place, f"{path} cannot be {node.value}; fitting: {', '.join(sorted(fitting))}")
            return True
        self.wiring.setdefault(owner, {})[key] = node.value
        self.visit(node.value, node.place, path, inline)
        return True

    def _require_parts(self, name: str, node: Section) -> None:
        """Notes parts that are not named, which no code can choose."""
        for key, parameter in parameters_of(self._components[name]).items():
            if parameter.knob or not parameter.required or key in node.entries:
                continue
            fitting = self._fitting(name, key)
            if fitting:
                self._lose(
                    node.place, f"{join(name, key)} is required; name one of {', '.join(sorted(fitting))}"
                )

    def _fitting(self, owner: str, key: str) -> set[str]:
        """The components that a positional parameter's type admits; none where it is no component at all."""
        hint = parameters_of(self._components[owner])[key].hint
        # Python 3.10 takes `tuple[int, ...]` for a class, 3.11 `Any`.
        if not isinstance(hint, type) or get_origin(hint) is not None or hint in (object, Any):
            return set()
        if getattr(hint, "_is_protocol", False):  # a protocol without runtime check admits what has its shape
            return set(self._components)
        return {name for name, c in self._components.items() if isinstance(c, type) and issubclass(c, hint)}
