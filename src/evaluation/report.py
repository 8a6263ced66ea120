"""What stays of an evaluation and of a run: metrics as JSON, curves as a picture."""

import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .metrics import CocoMetrics

logger = logging.getLogger(__name__)

LOSS_KEY = re.compile(r"loss_([a-z]+)")
"""Every `loss_<family>` and `loss_<family>_<which output>` of the training lines."""

SMOOTHING = 0.02
"""Part of a run over which the curves of training are averaged."""


class Curve(NamedTuple):
    """One line of a plot."""

    steps: list[float]
    values: list[float]


def write_metrics(metrics: CocoMetrics, path: str | Path) -> None:
    """Write the metrics as JSON: whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".tmp")
    partial.write_text(json.dumps(metrics.to_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, target)


def plot_history(metrics_jsonl: str | Path, path_png: str | Path) -> None:
    """Draw the losses and the AP of a run, from the trainer's `metrics.jsonl`.

    Args:
        metrics_jsonl: One JSON object a line; `kind` is `train` (with `step`, `loss`, `loss_<family>...`) or
            `eval` (with `step`, `AP`, `AP50`).
        path_png: The picture to write: whole or not at all.

    Raises:
        ValueError: The file is missing, a line is no JSON object, or there is nothing to draw. A last line
            that an interrupted run left unfinished is passed over.
    """
    lines = _read_lines(Path(metrics_jsonl))
    training = [line for line in lines if line.get("kind") == "train"]
    evaluations = [line for line in lines if line.get("kind") == "eval"]
    if not training and not evaluations:
        raise ValueError(f"{metrics_jsonl} holds no line of kind 'train' or 'eval': nothing to draw")
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, training)
    _draw_precision(right, evaluations)
    target = Path(path_png)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".tmp")
    with partial.open("wb") as file:
        figure.savefig(file, format="png")
    os.replace(partial, target)


def loss_families(line: Mapping[str, Any]) -> dict[str, float]:
    """A training line's losses, summed over layers and kinds of queries: `loss_vfl_aux_0` is of `vfl`."""
    families: dict[str, float] = {}
    for key, value in line.items():
        match = LOSS_KEY.match(key)
        if match and _is_number(value):
            families[match[1]] = families.get(match[1], 0.0) + value
    return families


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            if number == len(texts):  # no line end: the run was stopped while it wrote
                logger.warning("%s: the last line is unfinished and left out", path)
                continue
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object")
        lines.append(line)
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _curve(lines: list[dict[str, Any]], key: str) -> Curve:
    """The lines' `key` over their `step`; what is missing or not finite is left out."""
    kept = [line for line in lines if _is_number(line.get("step")) and _is_number(line.get(key))]
    return Curve([float(line["step"]) for line in kept], [float(line[key]) for line in kept])


def _smooth(values: list[float], span: float) -> list[float]:
    """Exponential mean over about `span` values, not biased towards the first one."""
    keep = 1 - 1 / max(span, 1.0)
    total = weight = 0.0
    smoothed = []
    for value in values:
        total = keep * total + value
        weight = keep * weight + 1
        smoothed.append(total / weight)
    return smoothed


def _draw_losses(axes: Axes, training: list[dict[str, Any]]) -> None:
    """The whole loss (as it was and smoothed) and each family's sum, on a logarithmic scale."""
    span = SMOOTHING * len(training)
    total = _curve(training, "loss")
    axes.plot(*total, color="0.8", linewidth=0.8)
    axes.plot(total.steps, _smooth(total.values, span), color="black", linewidth=1.8, label="all losses")
    by_family = [{"step": line.get("step"), **loss_families(line)} for line in training]
    for family in sorted({key for line in by_family for key in line} - {"step"}):
        steps, values = _curve(by_family, family)
        axes.plot(steps, _smooth(values, span), linewidth=1.1, label=family)
    axes.set_yscale("log")
    _finish(axes, "Training", "loss (weighted)")


def _draw_precision(axes: Axes, evaluations: list[dict[str, Any]]) -> None:
    """AP and AP50 in percent; -1 (nothing to find) is left out."""
    for key in ("AP", "AP50"):
        steps, values = _curve([line for line in evaluations if line.get(key, -1) != -1], key)
        axes.plot(steps, [100 * value for value in values], marker="o", markersize=3, label=key)
        if values:
            axes.annotate(
                f"{100 * values[-1]:.1f}",
                (steps[-1], 100 * values[-1]),
                textcoords="offset points",
                xytext=(0, 6),
                ha="center",
                fontsize=8,
            )
    axes.set_ylim(0, 105)
    _finish(axes, "Evaluation", "COCO average precision [%]")


def _finish(axes: Axes, title: str, quantity: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("training step")
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=6)
