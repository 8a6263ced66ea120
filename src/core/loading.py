"""From a file and overrides to a checked experiment."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .checks import check_together, place_of
from .components import Factory, Reached
from .data_settings import OpSettings
from .data_source import follow_data
from .experiment import Experiment
from .includes import read_config
from .overrides import apply_override
from .problems import Place, Problems, nearest
from .renamed import advice
from .schema import INVALID, Binder, Invalid, parameters_of
from .yaml_tree import Entry, Node, Scalar, Section

ROOTS = ("model", "criterion", "postprocessor")
NOT_KEYS = ("components", "wiring")


def load_experiment(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    components: Mapping[str, Factory],
    transforms: Mapping[str, Factory],
    count_classes: Callable[[str], int] | None = None,
) -> Experiment:
    """Reads an experiment: the file's includes in order, the file, the overrides, each over what was before.

    Args:
        path: A YAML file.
        overrides: What `-u` was given, each `a.b=value`.
        components: Classes that a section may be named after; their keyword-only parameters are its keys.
        transforms: Classes that a transform's `type` may name.
        count_classes: Counts the classes of the dataset that `data` names.

    Returns:
        The experiment, complete and checked.

    Raises:
        ConfigError: With every fault found, each with file and line.
    """
    problems = Problems()
    tree = follow_data(_read_tree(Path(path), overrides, problems), count_classes, problems)
    own, sections = _split(tree, components, problems)
    binder = Binder(problems, {OpSettings: _TransformRule(transforms)})
    values = binder.partial(own, Experiment, "", ignore=NOT_KEYS)
    values.setdefault("output_dir", f"./output/{Path(path).stem}")
    check_together(values, tree, problems)
    reached = Reached(sections, components, problems)
    for key in ROOTS:
        if key in values:
            reached.visit(values[key], place_of(tree, key), key)
    if all(key in values for key in ROOTS):
        reached.check_unused(", ".join(f"{key}: {values[key]}" for key in ROOTS))
    problems.raise_any()
    return Experiment(**values, components=reached.arguments, wiring=reached.wiring)


def load_arguments(path: Path, overrides: Sequence[str], target: Factory) -> dict[str, Any]:
    """The keyword arguments that a file of their own gives to `target`, whose knobs are the file's keys.

    Raises:
        ConfigError: With every fault found, each with file and line.
    """
    problems = Problems()
    tree = _read_tree(path, overrides, problems)
    arguments = Binder(problems).partial(tree, target, "")
    problems.raise_any()
    return arguments


def _read_tree(path: Path, overrides: Sequence[str], problems: Problems) -> Section:
    tree = read_config(path, problems) or Section({}, Place(str(path)))
    for override in overrides:
        tree = apply_override(tree, override, problems)
    if problems.blocked:
        problems.raise_any()
    return tree


class _TransformRule:
    """Binds one item of `ops`: its `type` chooses the class, the other keys are that class's knobs."""

    def __init__(self, transforms: Mapping[str, Factory]) -> None:
        self._transforms = transforms

    def __call__(self, binder: Binder, node: Node, path: str) -> OpSettings | Invalid:
        """The transform's settings; INVALID, and a note, where they do not fit."""
        kind = node.entries.get("type") if isinstance(node, Section) else None
        if not isinstance(node, Section) or kind is None:
            binder.problems.add(
                node.place, f"{path} must be a mapping with `type:` and the transform's knobs"
            )
            return INVALID
        name = kind.node.value if isinstance(kind.node, Scalar) else None
        if not isinstance(name, str) or name not in self._transforms:
            hint = advice(f"ops.{name}") or nearest(str(name), self._transforms)
            binder.problems.add(kind.node.place, f"{path}.type names no transform '{name}'; {hint}")
            return INVALID
        entries = {key: entry for key, entry in node.entries.items() if key != "type"}
        knobs = binder.arguments(Section(entries, node.place), self._transforms[name], path)
        return INVALID if isinstance(knobs, Invalid) else OpSettings(type=name, knobs=knobs)


def _split(
    tree: Section, components: Mapping[str, Factory], problems: Problems
) -> tuple[Section, dict[str, Entry]]:
    """The experiment's own keys and the sections of components; a key that is neither is noted."""
    keys = {name for name in parameters_of(Experiment) if name not in NOT_KEYS}
    own: dict[str, Entry] = {}
    sections: dict[str, Entry] = {}
    for key, entry in tree.entries.items():
        if key in components:
            sections[key] = entry
        elif key in keys:
            own[key] = entry
        else:
            other = advice(key)
            known = nearest(key, keys | set(components))
            problems.add(
                entry.place, f"{key} is not a key here: {other}" if other else f"unknown key {key}; {known}"
            )
    return Section(own, tree.place), sections
