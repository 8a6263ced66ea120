import csv
import json

import numpy as np
import pytest
from PIL import Image

from src.evaluation import plot_history, write_csv
from src.evaluation.history import loss_families


def history(path, num_steps=40, tail=""):
    lines = [
        {"kind": "train", "epoch": k // 10, "step": k, "loss": 30 / (k + 1), "loss_vfl": 1 / (k + 1)}
        | {"loss_vfl_aux_0": 1.0, "loss_bbox": 0.2, "lr": 1e-4}
        for k in range(num_steps)
    ]
    lines += [{"kind": "eval", "epoch": k, "step": 10 * k, "AP": k / 10, "AP50": k / 8} for k in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)


def test_families_sum_their_losses():
    line = {"loss": 9.0, "loss_vfl": 1.0, "loss_vfl_aux_0": 2.0, "loss_giou_dn_pre": 0.5, "lr": 1.0}
    assert loss_families(line | {"loss_fgl": float("nan")}) == {"vfl": 3.0, "giou": 0.5}


def test_plot_is_a_picture_with_curves(tmp_path):
    history(tmp_path / "metrics.jsonl")
    plot_history(tmp_path / "metrics.jsonl", tmp_path / "plots" / "history.png")
    with Image.open(tmp_path / "plots" / "history.png") as image:
        assert image.format == "PNG" and image.size == (900, 1080)
        pixels = np.asarray(image.convert("RGB"))
    above, below = pixels[:540], pixels[540:]
    blue, orange = (37, 99, 235), (249, 115, 22)  # the first two colours: bbox and vfl, AP and AP50
    for half in (above, below):
        for colour in (blue, orange):
            assert (np.abs(half.astype(int) - colour) < 40).all(-1).sum() > 50
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["history.png"]


def test_plot_of_training_alone_evaluation_alone_and_one_line(tmp_path):
    sizes = []
    for kind in ("train", "eval"):
        history(tmp_path / "all.jsonl", num_steps=1)
        lines = [line for line in (tmp_path / "all.jsonl").read_text().splitlines() if f'"{kind}"' in line]
        (tmp_path / "part.jsonl").write_text("\n".join(lines[:1]))
        plot_history(tmp_path / "part.jsonl", tmp_path / f"{kind}.png")
        sizes.append((tmp_path / f"{kind}.png").stat().st_size)
    assert min(sizes) > 5000


def test_values_that_cannot_be_drawn_are_left_out(tmp_path):
    lines = [
        {"kind": "train", "step": 1, "loss": float("nan"), "loss_vfl": float("inf")},
        {"kind": "train", "step": 2, "loss": 3.0},
        {"kind": "eval", "step": 2, "AP": -1, "AP50": -1},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    plot_history(tmp_path / "m.jsonl", tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 5000


def test_unfinished_last_line_is_passed_over_and_others_are_named(tmp_path, caplog):
    history(tmp_path / "m.jsonl", tail='{"kind": "tra')
    plot_history(tmp_path / "m.jsonl", tmp_path / "m.png")
    assert "last line is unfinished" in caplog.text
    (tmp_path / "m.jsonl").write_text('{"kind": "tra\n{"kind": "eval", "step": 1, "AP": 0.5}\n')
    with pytest.raises(ValueError, match=r"m\.jsonl, line 1 is not JSON"):
        plot_history(tmp_path / "m.jsonl", tmp_path / "m.png")
    (tmp_path / "m.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        plot_history(tmp_path / "m.jsonl", tmp_path / "m.png")
    (tmp_path / "m.jsonl").write_text('{"kind": "note"}\n')
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_history(tmp_path / "m.jsonl", tmp_path / "n.png")
    with pytest.raises(ValueError, match="cannot be read"):
        plot_history(tmp_path / "missing.jsonl", tmp_path / "n.png")
    assert not (tmp_path / "n.png").exists()


def test_the_table_holds_every_line_and_every_number(tmp_path):
    history(
        tmp_path / "m.jsonl", num_steps=3, tail='{"kind": "eval", "step": 99, "AP": null, "note": "a,b"}\n'
    )
    write_csv(tmp_path / "m.jsonl", tmp_path / "m.csv")
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 8
    for line, row in zip(lines, rows, strict=True):
        told = {key: value for key, value in row.items() if value}
        assert told == {key: str(value) for key, value in line.items() if value is not None}
    assert list(rows[0])[:4] == ["kind", "epoch", "step", "loss"]
