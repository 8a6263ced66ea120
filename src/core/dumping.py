"""From an experiment back to one plain YAML file."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from .data_settings import OpSettings
from .experiment import Experiment
from .yaml_tree import add_scalars

NOT_KEYS = ("components", "wiring")


class _Dumper(yaml.SafeDumper):
    """Quotes text that our reader, or YAML 1.1, would take for a number, a truth value or null."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the name is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML folds exotic line breaks (NEL, U+2028) in its other styles, so that they come back as blanks.
    broken = value != "" and value.splitlines() != [value]
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if broken else None)


add_scalars(_Dumper)
_Dumper.add_representer(str, _text)


def dump_experiment(experiment: Experiment) -> str:
    """One YAML document, without includes, that loads to an equal experiment."""
    top = {key: value for key, value in _plain(experiment).items() if key not in NOT_KEYS}
    sections = {
        name: {**experiment.wiring.get(name, {}), **_plain(knobs)}
        for name, knobs in experiment.components.items()
    }
    return dump_tree({**top, **sections})


def dump_tree(tree: Mapping[str, Any]) -> str:
    """Plain values, as parsed from such a document, as one YAML document again."""
    return yaml.dump(
        dict(tree),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=110,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, OpSettings):
        return {"type": value.type, **_plain(value.knobs)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
