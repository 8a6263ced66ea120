import json

import pytest

from src.deploy.comparison.machine import Machine
from src.deploy.comparison.model_info import Flops, ModelInfo
from src.deploy.comparison.model_table import Comparison, Entry, Speed
from src.deploy.comparison.timing import Timing

MACHINE = Machine("Fast 3000", 8, 4, 0.5, None, "3.10.1", "2.10.0", "1.20.0")
INFO = ModelInfo(
    {"backbone": 20_000_000, "decoder": 4_990_000},
    {"backbone": 20_000_000, "decoder": 4_900_000},
    Flops(125_300_000_000, 47_900_000_000),
    (320, 640),
)
TORCH = Speed("PyTorch, CPU", Timing(0.05, 0.04, 0.0612, 20), Timing(0.4, 0.39, 0.41, 20), 8)
ONNX = Speed("ONNX Runtime, CPU", Timing(0.025, 0.02, 0.03, 20), Timing(0.16, 0.15, 0.17, 20), 8)


def entry(label: str, *speeds: Speed, metrics: dict[str, float] | None = None) -> Entry:
    checkpoint = None if metrics is None else "best.pth"
    return Entry(label, f"configs/{label}.yml", checkpoint, INFO, speeds, metrics)


def cells(line: str) -> list[str]:
    return [cell for cell in line.split("  ") if cell.strip()]


def test_a_row_for_each_model_and_runtime_below_the_machine():
    lines = (
        Comparison(MACHINE, (entry("ours", TORCH, ONNX), entry("theirs", TORCH, ONNX))).table().splitlines()
    )
    assert lines[0] == MACHINE.line()
    assert "median of 20 rounds" in lines[1]
    head, rule, *rows = lines[3:]
    assert cells(head)[-1].strip() == "pictures/s, batch 8" and set(rule) == {"-"}
    assert [[cell.strip() for cell in cells(row)] for row in rows] == [
        [name, "320x640", "24.99", "24.90", "125.3", "77.4", *speed]
        for name in ("ours", "theirs")
        for speed in (
            ["PyTorch, CPU", "50.0", "40.0-61.2", "20.0"],
            ["ONNX Runtime, CPU", "25.0", "20.0-30.0", "50.0"],
        )
    ]
    assert max(map(len, rows)) <= len(rule)


def test_ap_in_percent_and_a_dash_where_nothing_was_to_find():
    scored = entry("ours", TORCH, metrics={"AP": 0.5678, "AP50": -1.0})
    lines = Comparison(MACHINE, (scored, entry("theirs", TORCH))).table().splitlines()
    assert lines[3].split()[-2:] == ["AP", "AP50"]
    assert lines[5].split()[-2:] == ["56.8", "-"]
    assert lines[6].split()[-2:] == ["-", "-"]
    assert lines[1].endswith("AP by PyTorch.")
    assert "AP" not in Comparison(MACHINE, (entry("ours", TORCH),)).table()


def test_ap_stands_with_the_runtime_that_it_was_found_in():
    scored = entry("ours", TORCH, ONNX, metrics={"AP": 0.5, "AP50": 0.7})
    rows = Comparison(MACHINE, (scored,)).table().splitlines()[5:]
    assert [row.split()[-1] for row in rows] == ["70.0", "50.0"], "the last one is a throughput"


def test_all_numbers_as_json():
    scored = entry("ours", TORCH, ONNX, metrics={"AP": 0.5678, "AP50": 0.7})
    content = json.loads(json.dumps(Comparison(MACHINE, (scored,)).to_dict()))
    assert content["machine"]["cpu"] == "Fast 3000" and content["machine"]["threads"] == 4
    (model,) = content["models"]
    assert (model["label"], model["config"], model["checkpoint"]) == ("ours", "configs/ours.yml", "best.pth")
    assert model["parameters"]["train"]["total"] == 24_990_000 and model["size_hw"] == [320, 640]
    assert model["metrics"] == {"AP": 0.5678, "AP50": 0.7}
    first, second = model["speeds"]
    expected = {"median": 50, "lower_quartile": 40, "upper_quartile": 61.2, "calls": 20}
    assert first["batch_1_ms"] == pytest.approx(expected)
    assert first["batch_8_pictures_per_second"] == 20 and second["batch_8_ms"]["median"] == 160
