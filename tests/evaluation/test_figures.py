"""The curves are the evaluator's: their heights are its numbers."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_cases import NASTY_NAMES, random_scored, scored

from src.evaluation import figures


def lines_by_label(figure):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}


@pytest.mark.parametrize("at_50", [True, False])
def test_the_mean_height_of_a_curve_is_the_evaluators_ap(at_50):
    case = random_scored()
    metrics = case.metrics
    lines = lines_by_label(figures.precision_recall_of_classes(case, at_50=at_50))
    expected = {row.name: row.AP50 if at_50 else row.AP for row in metrics.classes}
    expected["mean of 4 classes"] = metrics.AP50 if at_50 else metrics.AP
    heights = {label.rsplit("  ", 1)[0].strip(): line.mean() for label, line in lines.items()}
    assert heights == pytest.approx(expected)
    assert {label.rsplit("  ", 1)[1] for label in lines} == {f"{100 * v:.1f}" for v in expected.values()}


def test_the_mean_over_the_thresholds_curves_is_ap():
    case = random_scored()
    heights = [line.mean() for line in lines_by_label(figures.precision_recall_of_thresholds(case)).values()]
    assert len(heights) == 10
    assert heights[0] == pytest.approx(case.metrics.AP50) and heights[5] == pytest.approx(case.metrics.AP75)
    assert np.mean(heights) == pytest.approx(case.metrics.AP)


def test_of_many_classes_the_lines_have_no_names():
    case = random_scored(names=tuple(f"class {i}" for i in range(40)))
    legend = figures.precision_recall_of_classes(case, at_50=True).axes[0].get_legend()
    present = sum(row.num_objects > 0 for row in case.metrics.classes)
    assert [text.get_text()[:18] for text in legend.get_texts()] == [f"mean of {present} classes "[:18]]


def test_bars_stand_for_the_classes_that_have_objects():
    case = scored([(0, 0, [0, 0, 9, 9])], [(0, 0, [0, 0, 9, 9], 0.9)], num_images=1)
    axes = figures.class_bars(case.metrics.classes).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat  (1)"]
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([100, 100])


def test_any_name_can_be_drawn(tmp_path, caplog):
    names = tuple(name.encode("utf-8", "replace").decode() for name in NASTY_NAMES)  # as the report does
    case = random_scored(names=names)
    matrix = np.eye(len(names) + 1, dtype=np.int64)
    legend = figures.precision_recall_of_classes(case, at_50=True).axes[0].get_legend()
    assert len(legend.get_texts()) == len(names) + 1  # and the mean
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's that the layout does not fit, for one
        for number, figure in enumerate(
            (
                figures.precision_recall_of_classes(case, at_50=True),
                figures.class_bars(case.metrics.classes),
                figures.confusion(matrix, names, 0.5),
            )
        ):
            path = figures.save(figure, tmp_path / "new" / f"{number}.png")
            with Image.open(path) as image:
                assert image.format == "PNG" and min(image.size) > 300
    assert not caplog.records


def test_matplotlib_is_loaded_when_something_is_drawn():
    """And never its global state, pyplot."""
    code = (
        "import sys, src.evaluation; assert not any(name.startswith('matplotlib') for name in sys.modules);"
        "from src.evaluation import figures; assert 'matplotlib.figure' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
