"""Parameter groups by regular expression: which parameters get which learning rate and weight decay."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn import Parameter

REST = "rest"


class Rule(NamedTuple):
    """A group of parameters with rates of its own.

    Attributes:
        pattern: Regular expression; `re.search` must find it in the parameter's full name.
        lr: Learning rate of the group; None takes the optimizer's.
        weight_decay: Weight decay of the group; None takes the optimizer's.
    """

    pattern: str
    lr: float | None = None
    weight_decay: float | None = None


def parameter_groups(
    model: nn.Module, rules: Sequence[Rule], *, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Sort all parameters of `model` into groups for a torch optimizer.

    The first rule that matches a name takes it; what no rule takes goes to a last group, "rest". Frozen
    parameters enter too: a stage may release them later, and an optimizer skips what has no gradient.

    Args:
        model: The bare model, so that names carry no wrapper's prefix.
        rules: In order of precedence.
        lr: Learning rate where the rule has none, and of the rest.
        weight_decay: Weight decay where the rule has none, and of the rest.

    Returns:
        One mapping for each rule, and the rest where there is one: `params`, `param_names` (in the same
        order), `lr`, `initial_lr`, `weight_decay` and `name`, the pattern.

    Raises:
        ValueError: A pattern is no regular expression, or gets no parameter.
    """
    patterns = [_compile(rule.pattern) for rule in rules]
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    owners = {name: next((i for i, p in enumerate(patterns) if p.search(name)), None) for name in parameters}
    _refuse_empty_rules(patterns, owners)
    groups = [
        _group(rule.pattern, _owned(parameters, owners, i), rule.lr, rule.weight_decay, lr, weight_decay)
        for i, rule in enumerate(rules)
    ]
    rest = _owned(parameters, owners, None)
    if rest:
        groups.append(_group(REST, rest, None, None, lr, weight_decay))
    return groups


def groups_table(groups: Sequence[Mapping[str, Any]]) -> str:
    """The groups as text, one line each: pattern, tensors, parameters, learning rate, weight decay."""
    rows = [("pattern", "tensors", "parameters", "lr", "weight decay")]
    rows += [_row(group["name"], group["params"], group) for group in groups]
    total = [p for group in groups for p in group["params"]]
    rows.append(("total", f"{len(total):,}", f"{sum(p.numel() for p in total):,}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _row(name: str, params: Sequence[Parameter], group: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    count = sum(p.numel() for p in params)
    return name, f"{len(params):,}", f"{count:,}", f"{group['initial_lr']:g}", f"{group['weight_decay']:g}"


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"parameter group '{pattern}' is no regular expression: {error}; write one that re.search "
            "finds in the names of the parameters it shall take"
        ) from error


def _owned(
    parameters: Mapping[str, Parameter], owners: Mapping[str, int | None], owner: int | None
) -> dict[str, Parameter]:
    return {name: p for name, p in parameters.items() if owners[name] == owner}


def _group(
    name: str,
    owned: Mapping[str, Parameter],
    own_lr: float | None,
    own_decay: float | None,
    lr: float,
    weight_decay: float,
) -> dict[str, Any]:
    rate = lr if own_lr is None else own_lr
    return {
        "params": list(owned.values()),
        "param_names": list(owned),
        "lr": rate,
        "initial_lr": rate,
        "weight_decay": weight_decay if own_decay is None else own_decay,
        "name": name,
    }


def _refuse_empty_rules(patterns: Sequence[re.Pattern[str]], owners: Mapping[str, int | None]) -> None:
    """Raise one ValueError for all patterns that get no parameter."""
    taken = set(owners.values())
    faults = [_why_empty(i, patterns, owners) for i in range(len(patterns)) if i not in taken]
    if faults:
        raise ValueError("; ".join(faults))


def _why_empty(index: int, patterns: Sequence[re.Pattern[str]], owners: Mapping[str, int | None]) -> str:
    pattern = patterns[index]
    matched = [name for name in owners if pattern.search(name)]
    if matched:
        earlier = sorted({owner for name in matched if (owner := owners[name]) is not None})
        names = " and ".join(f"'{patterns[i].pattern}'" for i in earlier)
        return (
            f"parameter group '{pattern.pattern}' gets no parameter: all {len(matched)} that it matches are "
            f"taken by the earlier {names} (the first rule that matches wins); move it before, or remove it"
        )
    literal = re.sub(r"\\.|\(\?[=!<:]+|[^A-Za-z0-9_.]", "", pattern.pattern.replace("\\.", "."))
    nearest = difflib.get_close_matches(literal, list(owners), n=3, cutoff=0.0)
    return (
        f"parameter group '{pattern.pattern}' matches no parameter of the model; the nearest names are "
        f"{', '.join(nearest) or 'none: the model has no parameter'}; correct the pattern, or remove it"
    )
