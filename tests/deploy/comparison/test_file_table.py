"""What a comparison of files says."""

import json
from pathlib import Path

import pytest

from src.deploy.agreement import Agreement, Tolerance
from src.deploy.comparison.file_table import Entry, FileComparison
from src.deploy.comparison.machine import Machine
from src.deploy.comparison.timing import Timing

MACHINE = Machine("Fast 3000", 8, 4, 0.5, None, "3.10.1", "2.10.0", "1.20.0", "2026.4")
SAME = Tolerance(score=1e-3, box_px=0.5, ap=0)
FIRST = Entry(
    "best.pth, as trained", "PyTorch", Path("a/best.pth"), 61_700_000, Timing(0.1, 0.09, 0.11, 5),
    {"AP": 0.56, "AP50": 0.8201}, None,
)  # fmt: skip
SECOND = Entry(
    "int8.onnx", "ONNX Runtime", Path("a/int8.onnx"), 5_000_000, Timing(0.04, 0.03, 0.05, 5),
    {"AP": 0.55, "AP50": -1.0}, Agreement(40, 1500, 20, 0.02, 3.25, 500),
)  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_row_for_each_file_below_the_machine() -> None:
    machine, rounds, about, _, head, rule, *rows = (
        FileComparison(MACHINE, SAME, (FIRST, SECOND)).text().splitlines()
    )
    assert machine == MACHINE.line() and machine.endswith("ONNX Runtime 1.20.0, OpenVINO 2026.4")
    assert "median of 5 rounds" in rounds
    assert about.startswith("Detections in 40 pictures: how many are within 0.001 in score and 0.5 px")
    assert cells(head)[-5:] == ["AP", "AP50", "agree, %", "score", "box, px"] and set(rule) == {"-"}
    assert [cells(row) for row in rows] == [
        ["best.pth, as trained", "PyTorch", "61.7", "100.0", "90.0-110.0", "1.00", "56.00", "82.01"],
        [
            "int8.onnx",
            "ONNX Runtime",
            "5.0",
            "40.0",
            "30.0-50.0",
            "0.40",
            "55.00",
            "-",
            "75.0",
            "0.02",
            "3.2",
        ],
    ]


def test_what_was_not_measured_has_no_column() -> None:
    plain = tuple(one._replace(metrics=None, agreement=None) for one in (FIRST, SECOND))
    text = FileComparison(MACHINE, SAME, plain).text()
    assert "AP" not in text and "agree" not in text and "Detections" not in text


def test_the_threshold_is_told() -> None:
    text = FileComparison(MACHINE, SAME._replace(floor=0.4), (FIRST, SECOND)).text()
    assert "Detections of a score from 0.4 on in 40 pictures" in text


def test_nothing_above_the_threshold_is_no_agreement() -> None:
    nothing = SECOND._replace(agreement=Agreement(40, 0, 0, 0.0, 0.0, 0))
    row = FileComparison(MACHINE, SAME._replace(floor=0.9), (FIRST, nothing)).text().splitlines()[-1]
    assert cells(row)[-3:] == ["-", "0", "0"]


def test_the_same_as_markdown() -> None:
    *_, head, rule, first, _ = (
        FileComparison(MACHINE, SAME, (FIRST, SECOND)).text(as_markdown=True).splitlines()
    )
    assert head.startswith("| file | run by | MB |")
    assert rule == "|---|---" + "|---:" * 9 + "|"
    assert first.startswith("| best.pth, as trained | PyTorch | 61.7 |") and first.count("|") == 12


def test_all_numbers_as_json() -> None:
    content = json.loads(json.dumps(FileComparison(MACHINE, SAME, (FIRST, SECOND)).to_dict()))
    assert content["machine"]["openvino"] == "2026.4"
    assert (content["tolerance"], content["threshold"]) == ({"score": 1e-3, "box_px": 0.5}, 0)
    first, second = content["files"]
    assert (first["agreement"], first["ratio"], first["path"]) == (None, 1, "a/best.pth")
    assert second["agreement"]["share"] == 0.75 and second["agreement"]["num_apart"] == 500
    assert second["ratio"] == pytest.approx(0.4)
    assert second["batch_1_ms"] == pytest.approx(
        {"median": 40, "lower_quartile": 30, "upper_quartile": 50, "calls": 5}
    )
