"""Parameter groups by regular expression: which parameters get which learning rate and weight decay."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from torch import nn

REST = "rest"
VIT = re.compile(r"^backbone\.vit\.(?:blocks\.(?P<block>\d+)\.|(?P<norm>norm)\.)?")
OUTSIDE = -1  # in place of a number of layers, where a parameter is not the ViT's


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
    model: nn.Module, rules: Sequence[Rule], *, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Sort all parameters of `model` into groups for a torch optimizer.

    The first rule that matches a name takes it; what no rule takes goes to a last group, "rest". Frozen
    parameters enter too: a stage may release them later, and an optimizer skips what has no gradient.

    Args:
        model: The bare model, so that names carry no wrapper's prefix.
        rules: In order of precedence.
        lr: Learning rate where the rule has none, and of the rest.
        weight_decay: Weight decay where the rule has none, and of the rest.
        layer_decay: Below 1, a group's part in the backbone's ViT is split by layer, and each layer's rate
            multiplied by this once for each layer above it: none for the final norm, one for the last block,
            most for the patch embedding and the tokens in front (BEiT's rule).

    Returns:
        One mapping for each rule, or for each layer that it meets, and likewise of the rest where there is
        one: `params`, `param_names` (in the same order), `lr`, `initial_lr`, `weight_decay` and `name`, the
        pattern.

    Raises:
        ValueError: A pattern is no regular expression, or gets no parameter; or layers shall differ and the
            backbone is no ViT.
    """
    patterns = [_compile(rule.pattern) for rule in rules]
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    owners = {name: next((i for i, p in enumerate(patterns) if p.search(name)), None) for name in parameters}
    _refuse_empty_rules(patterns, owners)
    above = _layers_above(parameters) if layer_decay != 1 else dict.fromkeys(parameters, OUTSIDE)
    groups: list[dict[str, Any]] = []
    for owner, rule in [*enumerate(rules), (None, Rule(REST))]:
        names = [name for name in parameters if owners[name] == owner]
        for depth in sorted({above[name] for name in names}, reverse=True):
            of_layer = [name for name in names if above[name] == depth]
            rate = (lr if rule.lr is None else rule.lr) * layer_decay ** max(depth, 0)
            groups.append(
                {
                    "params": [parameters[name] for name in of_layer],
                    "param_names": of_layer,
                    "lr": rate,
                    "initial_lr": rate,
                    "weight_decay": weight_decay if rule.weight_decay is None else rule.weight_decay,
                    "name": rule.pattern,
                }
            )
    return groups


def groups_table(groups: Sequence[Mapping[str, Any]]) -> str:
    """The groups as text, one line for each pattern: tensors, parameters, learning rates, weight decay."""
    rows = [("pattern", "tensors", "parameters", "lr", "weight decay")]
    rows += [_row(name, list(layers)) for name, layers in groupby(groups, key=itemgetter("name"))]
    total = [p for group in groups for p in group["params"]]
    rows.append(("total", f"{len(total):,}", f"{sum(p.numel() for p in total):,}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _row(name: str, layers: Sequence[Mapping[str, Any]]) -> tuple[str, str, str, str, str]:
    params = [p for layer in layers for p in layer["params"]]
    rates = sorted({layer["initial_lr"] for layer in layers})
    between = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g} to {rates[-1]:.3g}"
    decay = f"{layers[0]['weight_decay']:g}"
    return name, f"{len(params):,}", f"{sum(p.numel() for p in params):,}", between, decay


def _layers_above(names: Iterable[str]) -> dict[str, int]:
    """How many layers of the backbone's ViT stand above each parameter of it; OUTSIDE for the others."""
    matches = {name: VIT.match(name) for name in names}
    blocks = [int(match["block"]) for match in matches.values() if match and match["block"]]
    if not blocks:
        raise ValueError(
            "optimizer.layer_decay needs a ViT, parameters named backbone.vit.blocks.N., which the backbone "
            "is not: remove it, or take a DINOv3Backbone or DinoAdapter"
        )
    norm = max(blocks) + 2  # its layer; 0 is what stands before the first block

    def layer(match: re.Match[str]) -> int:
        return norm if match["norm"] else int(match["block"]) + 1 if match["block"] else 0

    return {name: norm - layer(match) if match else OUTSIDE for name, match in matches.items()}


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"parameter group '{pattern}' is no regular expression: {error}; write one that re.search "
            "finds in the names of the parameters it shall take"
        ) from error


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
