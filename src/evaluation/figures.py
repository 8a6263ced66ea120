"""The charts of a report, drawn by matplotlib without its global state; imported where they are drawn.

Legend: C classes.
"""

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text
from numpy.typing import NDArray

from ..files import replacing
from .errors import KINDS, Costs
from .matching import IOU_THRESHOLDS, RECALL_THRESHOLDS
from .metrics import ClassMetrics
from .scored import Assigned, Scored, f1_by_score

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
COLOURS = (
    "#2563eb", "#f97316", "#10b981", "#a855f7", "#e11d48", "#0891b2",
    "#a16207", "#64748b", "#db2777", "#65a30d", "#4338ca", "#b45309",
)  # fmt: skip
"""Of middling brightness: the page turns the charts dark where the reader wants it so."""

ACCENT = COLOURS[0]
DPI = 150
WIDTH = 5.6  # inches
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC",
    "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip
NAMED_CLASSES = len(COLOURS)  # more lines than this are not told apart
BARS = 100
CELLS_WITH_NUMBERS, CELLS_WITH_NAMES = 16, 100
LONGEST_NAME = 24


def new_axes(width: float = WIDTH, height: float = 4.3) -> tuple[Figure, Axes]:
    """A figure of this size in inches, and axes in the report's style."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    style_axes(axes)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """Quiet lines, so that the data speaks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> Path:
    """Write the picture, whole or not at all; names are shown as they are, whatever signs they hold."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(_families())
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), replacing(path) as partial, partial.open("wb") as file:
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # a box stands for the sign
        figure.savefig(file, format="png")
    return path


@cache
def _families() -> list[str]:
    """Fonts that are here: matplotlib's own, then the first that has a sign it lacks."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # another weight will do
    installed = set(get_font_names())
    return [name for name in FONTS if name in installed]


def short(name: str) -> str:
    """A class's name as a chart can show it."""
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def precision_recall_of_classes(scored: Scored, *, at_50: bool) -> Figure:
    """Precision over recall for each class and their mean, at IoU 0.50 or as the mean of all thresholds.

    The mean height of a curve's 101 points is that class's AP50, or AP, as COCO defines it.
    """
    curves = scored.curves.precision[0, :, :, 0] if at_50 else scored.curves.precision[:, :, :, 0].mean(0)
    rows, metrics = scored.metrics.classes, scored.metrics
    present = [label for label, row in enumerate(rows) if row.num_objects]
    figure, axes = new_axes()
    few = len(present) <= NAMED_CLASSES
    for number, label in enumerate(present):
        colour = COLOURS[number] if few else MUTED
        value = rows[label].AP50 if at_50 else rows[label].AP
        # a legend leaves out what begins with an underscore, as a class's name may
        name = f" {short(rows[label].name)}  {100 * value:.1f}" if few else "_"
        axes.plot(
            RECALL_THRESHOLDS, curves[:, label], color=colour, lw=1.3, alpha=0.9 if few else 0.25, label=name
        )
    if present:
        value = metrics.AP50 if at_50 else metrics.AP
        name = f"mean of {len(present)} classes  {100 * value:.1f}"
        axes.plot(RECALL_THRESHOLDS, curves[:, present].mean(1), color=INK, lw=2.6, label=name)
    title, legend = ("at IoU 0.50", "AP50") if at_50 else ("mean of IoU 0.50 to 0.95", "AP")
    _finish_curves(figure, axes, title, legend)
    return figure


def precision_recall_of_thresholds(scored: Scored) -> Figure:
    """Precision over recall, the mean of all classes, at each IoU threshold."""
    curves = scored.curves.precision[:, :, :, 0]
    present = [label for label, row in enumerate(scored.metrics.classes) if row.num_objects]
    figure, axes = new_axes()
    for i, threshold in enumerate(IOU_THRESHOLDS if present else ()):
        mean = curves[i][:, present].mean(1)
        colour = colormaps["viridis"](0.15 + 0.6 * (1 - i / 9))
        axes.plot(
            RECALL_THRESHOLDS, mean, color=colour, lw=1.8, label=f"{threshold:.2f}  {100 * mean.mean():.1f}"
        )
    _finish_curves(figure, axes, "mean of the classes, by IoU threshold", "IoU, AP")
    return figure


def _finish_curves(figure: Figure, axes: Axes, title: str, legend: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title(f"Precision and recall, {title}", fontsize=11, color=INK, loc="left")
    if axes.lines:
        _legend_below(figure, axes, f"{legend} [%]")
    else:
        _say_empty(axes)


def _legend_below(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """A legend under the axes, in as many columns as its words allow; the figure grows by its rows."""
    words = [str(line.get_label()) for line in axes.lines if not str(line.get_label()).startswith("_")]
    columns = int(np.clip(WIDTH / (0.55 + 0.085 * max(map(len, words))), 1, 4))
    figure.set_figheight(figure.get_figheight() + 0.19 * (-(-len(words) // columns) - 1))
    axes.legend(
        title=title, frameon=False, fontsize=9, title_fontsize=9, alignment="left",
        loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncol=columns,
    )  # fmt: skip


def _say_empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing to draw", ha="center", va="center", color=MUTED, transform=axes.transAxes)


def scores(assigned: Assigned, threshold: float) -> Figure:
    """Precision, recall and F1 at IoU 0.50 over the score from which on detections are kept."""
    figure, axes = new_axes()
    at, values = f1_by_score(assigned)
    named = zip(values, ("precision", "recall", "F1"), COLOURS[:3], strict=True)
    for line, name, colour in named if len(at) else ():
        axes.plot(at, line, color=colour, lw=2.4 if name == "F1" else 1.6, label=name)
    axes.axvline(threshold, color=INK, lw=1, ls=(0, (4, 3)), label=f"score {threshold:.3f}")
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="lowest score that is kept", ylabel="at IoU 0.50, all classes"
    )
    axes.set_title("What a score threshold gives", fontsize=11, color=INK, loc="left")
    _legend_below(figure, axes)
    return figure


def class_bars(rows: Sequence[ClassMetrics]) -> Figure:
    """AP and AP50 of each class that has objects, the best on top; of many classes the lowest 100."""
    shown = sorted((row for row in rows if row.num_objects), key=lambda row: row.AP)[:BARS]
    figure, axes = new_axes(WIDTH, 1.2 + 0.25 * max(len(shown), 2))
    places = np.arange(len(shown))
    axes.barh(places, [100 * row.AP50 for row in shown], color="#bfdbfe", height=0.72, label="AP50")
    axes.barh(places, [100 * row.AP for row in shown], color=ACCENT, height=0.72, label="AP")
    for place, row in zip(places.tolist(), shown, strict=True):
        axes.text(100 * row.AP50 + 1, place, f"{100 * row.AP:.1f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(places, [f"{short(row.name)}  ({row.num_objects})" for row in shown])
    axes.set(xlim=(0, 108), ylim=(-0.7, max(len(shown), 1) - 0.3), xlabel="average precision [%]")
    axes.grid(axis="y", visible=False)
    title = "AP of the classes (objects)" if len(shown) < BARS else f"Lowest AP, {BARS} classes (objects)"
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    if shown:
        axes.legend(edgecolor="white", fontsize=9, loc="lower right")
    else:
        _say_empty(axes)
    return figure


def confusion(matrix: NDArray[np.int64], names: Sequence[str], threshold: float) -> Figure:
    """The confusion matrix: numbers are counts, colours shares of a row. Empty classes are left out."""
    used = [label for label in range(len(names)) if matrix[label].any() or matrix[:, label].any()]
    matrix = matrix[np.ix_([*used, -1], [*used, -1])]
    size = len(matrix)
    labels = [short(names[label]) for label in used]
    side = float(np.clip(0.52 * size, 3.2, 13))
    room = 0.08 * max(map(len, ["background", *labels]))
    figure, axes = new_axes(side + room + 1.2, side + room + 0.8)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.6, 0, 1))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.axhline(size - 1.5, color="white", lw=3)
    axes.axvline(size - 1.5, color="white", lw=3)
    if size <= CELLS_WITH_NUMBERS:
        for row, column in np.argwhere(matrix).tolist():
            colour = "white" if shares[row, column] > 0.45 else INK
            axes.text(column, row, matrix[row, column], ha="center", va="center", fontsize=8, color=colour)
    if size <= CELLS_WITH_NAMES:
        font = float(np.clip(520 / size, 4, 9))
        axes.set_xticks(range(size), [*labels, "missed"], rotation=90, fontsize=font)
        axes.set_yticks(range(size), [*labels, "background"], fontsize=font)
        axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"Confusions at score ≥ {threshold:.3f}, IoU ≥ 0.50", fontsize=11, color=INK, loc="left")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, aspect=30, label="share of the row")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return figure


def error_bars(costs: Costs) -> Figure:
    """What each kind of error costs, in points of AP50."""
    values = {
        **costs.kinds,
        "all wrong detections": costs.false_positives,
        "all misses": costs.false_negatives,
    }
    points = [100 * value for value in values.values()]
    figure, axes = new_axes(WIDTH, 3.6)
    places = np.array([*range(len(KINDS)), len(KINDS) + 0.6, len(KINDS) + 1.6])
    axes.barh(places, points, color=[ACCENT] * len(KINDS) + [MUTED] * 2, height=0.7)
    reach = max(*points, 1.0)
    for place, value in zip(places.tolist(), points, strict=True):
        axes.text(max(value, 0) + 0.012 * reach, place, f"{value:.1f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(places, list(values))
    axes.set(xlim=(min(0.0, *points), 1.12 * reach), xlabel="points of AP50 that would be gained without it")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title("What errors cost (TIDE)", fontsize=11, color=INK, loc="left")
    return figure
