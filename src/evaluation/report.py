"""What stays of an evaluation: its numbers as JSON, and a report to look at, as pictures and as one page."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..files import replacing
from . import page
from .chapters import chapters
from .findings import Findings, work_out
from .gallery import Pictures, Tile, error_tiles, prediction_tiles, sheet
from .metrics import CocoMetrics
from .scored import Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_PREDICTIONS = 12
NUM_ERRORS = 8  # of each kind
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # Unicode's bidirectional overrides and isolates


def write_metrics(metrics: CocoMetrics, path: str | Path) -> None:
    """Write the metrics as JSON: whole or not at all."""
    _write_whole(Path(path), json.dumps(metrics.to_dict(), indent=2) + "\n")


def write_report(scored: Scored, pictures: Pictures, folder: Path, *, about: str) -> Path:
    """Write `folder`/report.html, and its pictures to `folder`/report, in place of an earlier report.

    The page also shows `folder`/curves.png, where a training run has drawn it.

    Args:
        scored: The evaluation that it is about.
        pictures: Where the pictures come from.
        folder: The run's.
        about: What was evaluated, in words.

    Returns:
        The page.

    Raises:
        ValueError: A picture cannot be read.
    """
    findings = work_out(_writable_names(scored))
    scored = findings.scored

    def readable(image_id: int) -> tuple[str, Image.Image]:
        name, picture = pictures(image_id)
        return _writable(name), picture

    charts = _draw_charts(findings, folder / "report")
    predictions = prediction_tiles(scored, findings.assigned, readable, findings.threshold, NUM_PREDICTIONS)
    errors = error_tiles(scored, findings.assigned, findings.split, readable, NUM_ERRORS)
    _save_sheet(predictions, folder / "report" / "predictions.png", columns=2)
    for kind, tiles in errors.items():
        _save_sheet(tiles, folder / "report" / f"errors_{kind}.png", columns=4)
    curves = folder / "curves.png"
    body = chapters(findings, charts, curves if curves.exists() else None, predictions, errors, folder, about)
    _write_whole(folder / "report.html", page.document(f"{folder.resolve().name}: evaluation", body))
    return folder / "report.html"


def _writable_names(scored: Scored) -> Scored:
    """The evaluation with class names that every font and every file can take."""
    names = tuple(_writable(name) for name in scored.classes.names)
    rows = tuple(row._replace(name=name) for row, name in zip(scored.metrics.classes, names, strict=True))
    return scored._replace(
        classes=scored.classes._replace(names=names), metrics=replace(scored.metrics, classes=rows)
    )


def _writable(name: str) -> str:
    """The name without signs that would turn what follows it around, a score for one.

    Half a surrogate pair, as broken file names hold, becomes a question mark.
    """
    return TURNING.sub("", name).encode("utf-8", "replace").decode("utf-8")


def _draw_charts(findings: Findings, folder: Path) -> dict[str, Path]:
    """All charts as PNG files, by name."""
    from . import figures  # matplotlib takes its time, and whoever only detects does without

    scored = findings.scored
    names = scored.classes.names
    drawn: dict[str, Callable[[], Figure]] = {
        "precision_recall_50": lambda: figures.precision_recall_of_classes(scored, at_50=True),
        "precision_recall": lambda: figures.precision_recall_of_classes(scored, at_50=False),
        "precision_recall_thresholds": lambda: figures.precision_recall_of_thresholds(scored),
        "scores": lambda: figures.scores(findings.assigned, findings.threshold),
        "classes": lambda: figures.class_bars(scored.metrics.classes),
        "confusion": lambda: figures.confusion(findings.matrix, names, findings.threshold),
        "errors": lambda: figures.error_bars(findings.costs),
    }
    return {name: figures.save(draw(), folder / f"{name}.png") for name, draw in drawn.items()}


def _save_sheet(tiles: list[Tile], path: Path, *, columns: int) -> None:
    with replacing(path) as partial:
        sheet(tiles, columns).save(partial, "PNG", compress_level=3)


def _write_whole(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")
