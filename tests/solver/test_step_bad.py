"""Steps that are not finite: nothing moves, and the file that is kept repeats them."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from step_cases import make_batch, make_detector, make_step, snapshot, split
from torch import Tensor

from src import assembly
from src.data import to_device_images
from src.nn.criterion import DFINECriterion
from src.solver.bad_step import (
    BadStep,
    bad_gradients,
    bad_step,
    bad_words,
    read_bad_step,
    replay,
    write_bad_step,
)
from src.solver.checkpoint import save_checkpoint
from src.solver.precision import Precision
from src.structures import Batch

BRAIN, HALF = torch.bfloat16, torch.float16
KINDS = [
    Precision("cpu", None),
    Precision("cpu", BRAIN),
    Precision("cpu", HALF),
    Precision("cpu", BRAIN, True),
]


@pytest.mark.parametrize("precision", KINDS, ids=["float32", "bfloat16", "float16", "O2"])
def test_everything_stays_as_it_was(precision: Precision) -> None:
    model = make_detector(num_denoising=6, batch_norm="train")
    step = make_step(model, precision, adam=True)
    step.scaler = torch.amp.GradScaler("cpu", enabled=precision.dtype is HALF, init_scale=256.0)
    parts = split(make_batch((2, 1, 1, 3)), 2)
    assert step(step.callee, parts[:1]).finite
    assert step.ema is not None
    before, average, updates = snapshot(model), snapshot(step.ema.module), step.ema.updates
    twin = snapshot(step.callee)
    moments = [
        {name: value.clone() for name, value in state.items()} for state in step.optimizer.state.values()
    ]
    spoilt = parts[1][0].clone()
    spoilt[0, 0, 0, 0] = float("nan")
    result = step(step.callee, [parts[0], (spoilt, parts[1][1])])
    assert not result.finite and not result.losses.isfinite().all()
    assert step.ema.updates == updates
    for now, then in ((model, before), (step.ema.module, average), (step.callee, twin)):
        assert all(torch.equal(value, then[name]) for name, value in now.state_dict().items())
    for state, kept in zip(step.optimizer.state.values(), moments, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in state.items())
    assert step.schedule.last_epoch == 2
    if precision.dtype is HALF:
        assert step.scaler.get_scale() == 128
    assert step(step.callee, parts).finite


def test_an_infinite_loss_with_finite_gradients_is_skipped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_detector()
    step = make_step(model)
    losses = DFINECriterion.forward
    monkeypatch.setattr(
        DFINECriterion, "forward", lambda *args: {**losses(*args), "loss_x": torch.tensor(torch.inf)}
    )
    before = snapshot(model)
    assert not step(model, [make_batch((1, 2))]).finite
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_whose_norm_alone_overflows_are_skipped(scaled: bool) -> None:
    """Each is finite, so that a scaler would let them pass."""
    model = make_detector()
    step = make_step(model, Precision("cpu", None), adam=True)
    step.scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1.0)
    hook = model.decoder.enc_bbox_head.layers[0].weight.register_hook(lambda grad: grad * 0 + 1e30)
    before = snapshot(model)
    assert not step(model, [make_batch((1, 2))]).finite
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert bad_gradients(model) == []
    hook.remove()
    assert step(model, [make_batch((1, 2))]).finite


def test_bad_gradients_are_named_as_they_were_before_clipping() -> None:
    model = make_detector()
    step = make_step(model)
    model.decoder.enc_bbox_head.layers[0].weight.register_hook(lambda grad: grad * torch.inf)
    result = step(model, [make_batch((1, 2))])
    assert not result.finite
    names = bad_gradients(model)
    assert names == ["decoder.enc_bbox_head.layers.0.weight"]
    losses = dict(zip(result.names, result.losses.tolist(), strict=True))
    assert bad_words(losses, names) == f"not finite are 0 losses and 1 gradients ({names[0]})"
    words = bad_words({**losses, "loss_a": float("nan")}, [str(i) for i in range(7)])
    assert words == "not finite are 1 losses (loss_a nan) and 7 gradients (0, 1, 2, 3, 4, ...)"


def skipped_step(config: Path) -> BadStep:
    """A step of the experiment, as the trainer makes it, that a weight which is no number spoils."""
    experiment = assembly.load(config)
    torch.manual_seed(5)
    model = assembly.build_model(experiment).train()
    model.backbone.set_trainable_blocks(0)
    step = make_step(model)
    step.criterion = assembly.build_criterion(experiment)
    with torch.no_grad():
        model.decoder.lqe_layers[0].mlp.layers[0].weight[0, 0] = float("nan")
    images, targets = make_batch((2, 0, 1))
    batches = [Batch((images * 255).byte(), targets), Batch((images * 100).byte(), targets)]
    torch.manual_seed(77)
    result = step(step.callee, [(to_device_images(b.images, (96, 64)), b.targets) for b in batches])
    return bad_step(
        model, step, result, batches, size_hw=(96, 64), epoch=3, seed=77, config=assembly.dump(experiment)
    )


def test_a_kept_step_is_repeated_by_one_command(tiny_config: Callable[..., Path], tmp_path: Path) -> None:
    bad = skipped_step(tiny_config(accumulate_steps=2))
    assert (bad.step, bad.rank, bad.scale) == (0, 0, 1.0)
    assert "backbone.vit.cls_token" in bad.frozen and "decoder.enc_score_head.weight" not in bad.frozen
    assert "decoder.lqe_layers.0.mlp.layers.0.weight" in bad.gradients
    path = tmp_path / "bad_step_0.pth"
    write_bad_step(path, bad)
    read = read_bad_step(path)
    assert [batch.targets.counts for batch in read.batches] == [(2, 0, 1)] * 2
    assert torch.equal(read.batches[1].images, bad.batches[1].images)
    assert (read.size_hw, read.seed, read.gradients) == ((96, 64), 77, bad.gradients)
    run = subprocess.run(
        [sys.executable, "tools/replay_step.py", str(path)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    where, then, now = run.stdout.splitlines()
    assert where == "step 0 of epoch 3, rank 0, pictures [0, 1, 2, 0, 1, 2]"
    assert then.removeprefix("then: ") == now.removeprefix("now:  ") == bad_words(bad.losses, bad.gradients)
    assert "2 losses (loss_vfl_aux_0 nan, loss_vfl_dn_0 nan)" in then
    experiment = assembly.load(tmp_path / "tiny.yml")
    fresh, criterion = assembly.build_model(experiment), assembly.build_criterion(experiment)
    again = replay(read, fresh, criterion, Precision("cpu", None), torch.device("cpu"))
    losses = torch.tensor(list(bad.losses.values()))
    torch.testing.assert_close(again.losses, losses, rtol=0, atol=0, equal_nan=True)
    assert bad_gradients(fresh) == bad.gradients


def test_a_skipped_step_is_left_out_of_the_log(
    tiny_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no step is left to tell of."""
    forward, calls, told = DFINECriterion.forward, itertools.count(1), []

    def spoil(*args: Any) -> dict[str, Tensor]:
        found, call = forward(*args), next(calls)
        told.append(sum(loss.item() for loss in found.values()))
        return {name: loss * float("nan") for name, loss in found.items()} if call in (2, 5, 6) else found

    monkeypatch.setattr(DFINECriterion, "forward", spoil)
    experiment = assembly.load(tiny_config())
    assembly.build_trainer(experiment, torch.device("cpu")).fit()
    records = map(json.loads, (Path(experiment.output_dir) / "metrics.jsonl").read_text().splitlines())
    lines = [record for record in records if record["kind"] == "train"]
    assert [line["step"] for line in lines] == [2, 4, 8]
    wanted = [told[0], (told[2] + told[3]) / 2, (told[6] + told[7]) / 2]
    assert [line["loss"] for line in lines] == pytest.approx(wanted, rel=1e-5)


def test_another_file_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pth", {"model": {}})
    with pytest.raises(ValueError, match="holds no skipped step"):
        read_bad_step(tmp_path / "last.pth")
