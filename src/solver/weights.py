"""Bring a checkpoint's weights into a model: all of them strictly, or what fits for fine-tuning."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..nn.backbone.lora import is_factor, under_base_layers
from ..nn.state_dict import from_upstream, is_upstream
from ..structures import ClassNames
from .published_classes import SAME_CLASS, has_row_of_no_class, published_classes

logger = logging.getLogger(__name__)

CLASS_TENSOR = re.compile(r"score_head|class_embed")
"""Names of the tensors whose rows belong to classes."""

KEPT, MAPPED, AVERAGED = "kept", "mapped by class name", "mean of its classes"
REINITIALISED, DROPPED = "re-initialised", "dropped"
SHOWN = 5


class _Rows(NamedTuple):
    """Where the rows of the class heads go when the classes change.

    Attributes:
        pairs: (new index, old index) of every class that both sides have.
        num_old: Classes of the checkpoint.
        num_new: Classes of the model.
    """

    pairs: tuple[tuple[int, int], ...]
    num_old: int
    num_new: int

    def fit(self, stored: Tensor, fresh: Tensor) -> bool:
        """Whether both tensors have a row for each class, and at most one more (denoising's padding)."""
        if not (stored.dim() and fresh.dim()) or stored.shape[1:] != fresh.shape[1:]:
            return False
        extra = stored.shape[0] - self.num_old
        return extra == fresh.shape[0] - self.num_new and extra in {0, 1}


def model_state(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The weights that a checkpoint publishes, and whether they are its "ema" or its "model".

    The average goes first. Takes our files, upstream's published ones (`{"model": ...}` or
    `{"ema": {"module": ...}}`) and plain state dicts. Row 0 of a published Objects365 file, which is no
    class, is left out of its class heads.

    Raises:
        ValueError: There are no weights by name in it.
    """
    state, part = _stored_state(checkpoint)
    if _has_row_of_no_class(checkpoint, state):
        state = {name: t[1:] if CLASS_TENSOR.search(name) else t for name, t in state.items()}
    return state, part


def _has_row_of_no_class(checkpoint: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    return not checkpoint.get("classes") and is_upstream(state) and has_row_of_no_class(state)


def _stored_state(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    average = checkpoint.get("ema")
    if isinstance(average, Mapping) and _is_state_dict(average.get("module")):
        return dict(average["module"]), "ema"
    if _is_state_dict(checkpoint.get("model")):
        return dict(checkpoint["model"]), "model"
    if _is_state_dict(checkpoint):
        return dict(checkpoint), "model"
    keys = ", ".join(map(str, list(checkpoint)[:SHOWN])) or "nothing"
    raise ValueError(
        f"a checkpoint keeps its weights under 'model' or 'ema', or is a state dict; this one holds {keys}"
    )


def load_model(model: nn.Module, checkpoint: Mapping[str, Any], source_path: Path) -> None:
    """Load all weights of `checkpoint` into `model`, upstream's names included.

    Raises:
        ValueError: Tensors are missing, left over or of another shape. `model` is unchanged.
    """
    state = _adapted_state(model, checkpoint, source_path)
    target = model.state_dict()
    missing = [name for name in target if name not in state]
    unexpected = [name for name in state if name not in target]
    reshaped = [
        f"{name} ({_shape(state[name])} in the file, {_shape(target[name])} in the model)"
        for name in target
        if name in state and state[name].shape != target[name].shape
    ]
    if missing or unexpected or reshaped:
        raise ValueError(_mismatch(source_path, checkpoint, missing, unexpected, reshaped))
    model.load_state_dict(state)
    _say_which(checkpoint, source_path)


def _say_which(checkpoint: Mapping[str, Any], path: Path) -> None:
    state, part = _stored_state(checkpoint)
    style = ", a published D-FINE file" if is_upstream(state) else ""
    logger.info("%s: took the %s weights%s", path, {"ema": "EMA"}.get(part, part), style)
    if _has_row_of_no_class(checkpoint, state):
        logger.info(
            "%s: its class heads have a row for each of Objects365's ids from 0 on; left out row 0, "
            "which is no class",
            path,
        )


def _adapted_state(model: nn.Module, checkpoint: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The checkpoint's weights under the names that `model` uses."""
    try:
        state, _ = model_state(checkpoint)
        if not is_upstream(state):
            return under_base_layers(state, model.state_dict())
        decoder: Any = model.get_submodule("decoder")
        return from_upstream(state, up=decoder.up, reg_scale=decoder.reg_scale)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(t, Tensor) for t in value.values())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _tensors(names: Sequence[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _mismatch(
    path: Path,
    checkpoint: Mapping[str, Any],
    missing: Sequence[str],
    unexpected: Sequence[str],
    reshaped: Sequence[str],
) -> str:
    kinds = (
        ("missing from it", missing),
        ("unknown to the model", unexpected),
        ("of another shape", reshaped),
    )
    parts = [f"{_tensors(names)} {kind}: {_first(names)}" for kind, names in kinds if names]
    return (
        f"{path}: is a checkpoint of another model. {'; '.join(parts)}. Give the config that it was trained "
        f"with (-c){_origin(checkpoint)}, or train on from what fits of it with -t"
    )


def _origin(checkpoint: Mapping[str, Any]) -> str:
    """What the checkpoint says of its own config, for a message."""
    config = checkpoint.get("config")
    told: list[str] = []
    if isinstance(config, str):
        for key in ("output_dir", "num_classes"):
            found = re.search(rf"^{key}:\s*(\S.*?)\s*$", config, re.MULTILINE)
            told += [f"{key} {found.group(1)}"] if found else []
    classes = class_names(checkpoint)
    if classes is not None:
        told.append(f"{len(classes.names)} classes: {_first(classes.names)}")
    return f"; its own says {', '.join(told)}" if told else ""


def class_names(checkpoint: Mapping[str, Any]) -> ClassNames | None:
    """The classes that the checkpoint's model was trained on; None where nothing tells them.

    A published D-FINE file does not say: its number of classes tells.
    """
    stated = checkpoint.get("classes")
    if isinstance(stated, Mapping) and stated.get("names"):
        return ClassNames(tuple(stated["names"]), tuple(stated["ids"]))
    try:
        state, _ = model_state(checkpoint)
    except ValueError:
        return None
    return published_classes(state) if is_upstream(state) else None


def tune_model(
    model: nn.Module, checkpoint: Mapping[str, Any], path: Path, classes: ClassNames | None = None
) -> str:
    """Load what fits of `checkpoint` into `model` for fine-tuning, and say what became of every tensor.

    Rows of the class heads follow their class by name, where the checkpoint and `classes` both have names; a
    class that it does not know starts with the mean of the score rows that it has. Without names rows are
    kept where the number of classes is the same. What is not taken over keeps the value of the fresh model.

    Args:
        model: The freshly built model.
        checkpoint: What `read_checkpoint` gave.
        path: Where it came from, for messages.
        classes: The classes that `model` is going to learn.

    Returns:
        A table: kept, mapped by class name, averaged, re-initialised and dropped tensors.

    Raises:
        ValueError: Fewer than half of the model's tensors fit, or they are the weights of a model with LoRA
            and this one has none. `model` is unchanged.
    """
    state = _adapted_state(model, checkpoint, path)
    target = model.state_dict()
    if any(map(is_factor, state)) and not any(map(is_factor, target)):
        raise ValueError(
            f"{path}: was trained with LoRA, whose factors this model has not: give it the same "
            f"DINOv3Backbone.lora{_origin(checkpoint)}"
        )
    rows = _rows_by_name(class_names(checkpoint), classes)
    fates: dict[str, list[str]] = {KEPT: [], MAPPED: [], AVERAGED: [], REINITIALISED: [], DROPPED: []}
    taken: dict[str, Tensor] = {}
    for name, fresh in target.items():
        fate, tensor = _fit(name, fresh, state.get(name), rows)
        fates[fate].append(name)
        if tensor is not None:
            taken[name] = tensor
    fates[DROPPED] = [name for name in state if name not in target]
    if 2 * len(taken) < len(target):
        raise ValueError(
            f"{path}: is a checkpoint of another model, only {len(taken)} of the model's {len(target)} "
            f"tensors fit; it lacks {_first(fates[REINITIALISED])}. Give the config that it was trained "
            f"with (-c){_origin(checkpoint)}; weights of a backbone alone belong into its checkpoint_path"
        )
    model.load_state_dict(target | taken)
    _say_which(checkpoint, path)
    return _table(path, fates, {**state, **target})


def covers(checkpoint: Mapping[str, Any], path: Path, model: nn.Module, prefix: str) -> bool:
    """Whether `checkpoint` has every tensor of `model` whose name starts with `prefix`, of the same shape.

    Raises:
        ValueError: There are no weights in it.
    """
    state = _adapted_state(model, checkpoint, path)
    wanted = {
        name: t.shape
        for name, t in model.state_dict().items()
        if name.startswith(prefix) and not is_factor(name)  # LoRA's start by themselves
    }
    return all(name in state and state[name].shape == shape for name, shape in wanted.items())


def _rows_by_name(old: ClassNames | None, new: ClassNames | None) -> _Rows | None:
    """Which class was which; None where one side has no names or nothing changes place."""
    if old is None or new is None or _keys(old) == _keys(new):
        return None
    index = {SAME_CLASS.get(key, key): i for i, key in enumerate(_keys(old))}
    index |= {key: i for i, key in enumerate(_keys(old))}  # the very name goes first
    found = [index.get(key, index.get(SAME_CLASS.get(key, key))) for key in _keys(new)]
    pairs = tuple((i, k) for i, k in enumerate(found) if k is not None)
    return _Rows(pairs, len(old.names), len(new.names))


def _keys(classes: ClassNames) -> list[str]:
    return [name.strip().casefold() for name in classes.names]


def _fit(name: str, fresh: Tensor, stored: Tensor | None, rows: _Rows | None) -> tuple[str, Tensor | None]:
    """What becomes of one tensor of the model, and the value that it takes over."""
    if stored is None:
        return REINITIALISED, None
    if rows is not None and CLASS_TENSOR.search(name) and rows.fit(stored, fresh):
        scores = "score_head" in name
        mapped, known = fresh.clone(), stored.to(fresh)
        if not (rows.pairs or scores):
            return REINITIALISED, None
        if scores:  # queries are chosen by their scores: a class it does not know starts as any object
            mapped[: rows.num_new] = known[: rows.num_old].mean(0)
        for new, old in rows.pairs:
            mapped[new] = known[old]
        mapped[rows.num_new :] = known[rows.num_old :]
        return MAPPED if rows.pairs else AVERAGED, mapped
    if stored.shape == fresh.shape:
        return KEPT, stored
    return REINITIALISED, None


def _table(path: Path, fates: Mapping[str, Sequence[str]], tensors: Mapping[str, Tensor]) -> str:
    rows = [("", "tensors", "parameters", "")]
    for fate, names in fates.items():
        listed = "" if fate == KEPT else _first(names)
        count = sum(tensors[name].numel() for name in names)
        rows.append((fate, f"{len(names):,}", f"{count:,}", listed))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c.rjust(widths[2])}  {d}".rstrip()
        for a, b, c, d in rows
    ]
    return "\n".join([f"fine-tuning from {path}", *lines])
