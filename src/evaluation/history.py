"""The story of a run: its losses and its AP over the steps, as a picture and as a table for spreadsheets."""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

LOSS_KEY = re.compile(r"loss_([a-z]+)")
"""Every `loss_<family>` and `loss_<family>_<which output>` of the training lines."""

SMOOTHING = 0.02
"""Part of a run over which the curves of training are averaged."""


class Curve(NamedTuple):
    """One line of a plot."""

    steps: list[float]
    values: list[float]


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
    from matplotlib.figure import Figure  # it takes its time, and whoever only detects does without

    from . import figures

    lines = read_lines(Path(metrics_jsonl))
    training = [line for line in lines if line.get("kind") == "train"]
    evaluations = [line for line in lines if line.get("kind") == "eval"]
    if not training and not evaluations:
        raise ValueError(f"{metrics_jsonl} holds no line of kind 'train' or 'eval': nothing to draw")
    figure = Figure(figsize=(6.0, 7.2), dpi=figures.DPI, layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1)
    for axes in (above, below):
        figures.style_axes(axes)
    _draw_losses(above, training, figures.COLOURS)
    _draw_precision(below, evaluations, figures.COLOURS)
    figures.save(figure, Path(path_png))


def write_csv(metrics_jsonl: str | Path, path_csv: str | Path) -> None:
    """Write the lines of `metrics.jsonl` as one table; a cell is empty where a line has no such number.

    Columns stand in the order in which the lines bring them up.

    Raises:
        ValueError: The file is missing or a line is no JSON object.
    """
    lines = read_lines(Path(metrics_jsonl))
    columns = dict.fromkeys(key for line in lines for key in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    with replacing(Path(path_csv)) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def loss_families(line: Mapping[str, Any]) -> dict[str, float]:
    """A training line's losses, summed over layers and kinds of queries: `loss_vfl_aux_0` is of `vfl`."""
    families: dict[str, float] = {}
    for key, value in line.items():
        match = LOSS_KEY.match(key)
        if match and _is_number(value):
            families[match[1]] = families.get(match[1], 0.0) + value
    return families


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a `metrics.jsonl`; a last line that is unfinished is left out with a warning.

    Raises:
        ValueError: The file cannot be read, or another line is no JSON object.
    """
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


def _draw_losses(axes: "Axes", training: list[dict[str, Any]], colours: Sequence[str]) -> None:
    """The whole loss (as it was and smoothed) and each family's sum, on a logarithmic scale."""
    span = SMOOTHING * len(training)
    total = _curve(training, "loss")
    axes.plot(*total, color="0.8", linewidth=0.8)
    smoothed = _smooth(total.values, span)
    axes.plot(total.steps, smoothed, ".-", markersize=3, color="#1f2937", linewidth=2.2, label="all losses")
    by_family = [{"step": line.get("step"), **loss_families(line)} for line in training]
    families = sorted({key for line in by_family for key in line} - {"step"})
    for number, family in enumerate(families):
        steps, values = _curve(by_family, family)
        colour = colours[number % len(colours)]
        axes.plot(steps, _smooth(values, span), ".-", markersize=3, linewidth=1.4, color=colour, label=family)
    if any(value > 0 for value in total.values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    _finish(axes, "Training", "loss (weighted)")


def _draw_precision(axes: "Axes", evaluations: list[dict[str, Any]], colours: Sequence[str]) -> None:
    """AP and AP50 in percent; -1 (nothing to find) is left out."""
    for key, colour in (("AP", colours[0]), ("AP50", colours[1])):
        steps, values = _curve([line for line in evaluations if line.get(key, -1) != -1], key)
        percent = [100 * value for value in values]
        axes.plot(steps, percent, "o-", markersize=3.5, linewidth=1.8, color=colour, label=key)
        if values:
            axes.annotate(
                f"{percent[-1]:.1f}",
                (steps[-1], percent[-1]),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=9,
                color=colour,
            )
    axes.set_ylim(0, 105)
    _finish(axes, "Evaluation", "COCO average precision [%]")


def _finish(axes: "Axes", title: str, quantity: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color="#1f2937")
    axes.set_xlabel("training step")
    axes.set_ylabel(quantity)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(-0.02, -0.15), ncol=4)
