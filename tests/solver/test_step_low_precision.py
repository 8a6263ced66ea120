"""Opt level O2: what is computed with, what is optimised, and what both leave behind."""

import copy

import pytest
import torch
from step_cases import make_batch, make_detector, make_step, snapshot, split
from torch import nn

from src.solver.low_precision import LowPrecisionTwin
from src.solver.precision import Precision, choose_precision
from src.solver.step import TrainingStep

CPU = torch.device("cpu")
O1, O2 = Precision("cpu", torch.bfloat16), Precision("cpu", torch.bfloat16, casts_weights=True)


def train(step: TrainingStep, steps: range, size: int = 4) -> list[float]:
    losses = []
    for i in steps:
        torch.manual_seed(i)
        result = step(step.callee, split(make_batch((2, 0, 3, 1)), size))
        assert result.finite
        losses.append(float(result.losses.sum()))
    return losses


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 2), (torch.float16, 4)])
def test_losses_and_weights_are_those_of_autocast(dtype: torch.dtype, size: int) -> None:
    """Autocast rounds the same weights at each use, so there is nothing to differ in."""
    results = []
    for casts_weights in (False, True):
        model = make_detector(num_denoising=6, batch_norm="train")
        step = make_step(model, Precision("cpu", dtype, casts_weights), adam=True, lr=1e-3)
        step.scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16, init_scale=256.0)
        results.append((train(step, range(2), size), snapshot(model)))
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_it_learns() -> None:
    model = make_detector(batch_norm="train")
    step = make_step(model, O2, adam=True, lr=3e-3)
    torch.manual_seed(3)
    batch = make_batch((2, 1, 3, 1))
    losses = [float(step(step.callee, [batch]).losses.sum()) for _ in range(40)]
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5]), losses


def test_masters_move_by_less_than_the_twin_can_show() -> None:
    model = make_detector()
    step = make_step(model, O2, lr=1e-6, adam=True)
    before, rounded = snapshot(model), snapshot(step.callee)
    train(step, range(3))
    name = "encoder.encoder.0.layers.0.linear1.weight"
    moved = (model.state_dict()[name] - before[name]).abs()
    assert model.state_dict()[name].dtype == torch.float32
    assert step.callee.state_dict()[name].dtype == torch.bfloat16
    assert moved.median() > 1e-6 and moved.max() < 1e-5
    # the twin shows almost none of it, and adding such steps up in its type would lose them all
    assert (step.callee.state_dict()[name] == rounded[name]).float().mean() > 0.9
    assert torch.equal(step.callee.state_dict()[name], model.state_dict()[name].bfloat16())


def test_norms_gains_and_buffers_are_the_model_s_own() -> None:
    model = make_detector(num_denoising=6)
    twin = LowPrecisionTwin(model, torch.bfloat16).module
    ours, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    cast = {name for name, p in theirs.items() if p.dtype == torch.bfloat16}
    assert all((theirs[name] is ours[name]) == (name not in cast) for name in ours)
    assert not [name for name in cast if "norm" in name or "class_embed" in name or "query_pos_head" in name]
    assert sum(ours[name].numel() for name in cast) > 0.8 * sum(p.numel() for p in ours.values())
    assert all(a is b for a, b in zip(model.buffers(), twin.buffers(), strict=True))


def test_what_is_frozen_stays_and_a_new_epoch_sees_what_is_released() -> None:
    model = make_detector(batch_norm="train")
    step = make_step(model, O2, adam=True)
    model.backbone.set_trainable_blocks(0)
    step.enter_epoch()
    assert not step.callee.backbone.vit.training and step.callee.backbone.sta.training
    before = snapshot(model)
    train(step, range(2))
    after = snapshot(model)
    vit = [name for name in before if name.startswith("backbone.vit.")]
    assert all(torch.equal(after[name], before[name]) for name in vit)
    assert not torch.equal(
        after["backbone.sta.projections.0.weight"], before["backbone.sta.projections.0.weight"]
    )
    model.backbone.set_trainable_blocks(1)
    step.enter_epoch()
    train(step, range(1))
    moved = {name for name in vit if not torch.equal(model.state_dict()[name], after[name])}
    assert "backbone.vit.blocks.1.attn.qkv.weight" in moved
    assert all(name.startswith(("backbone.vit.blocks.1.", "backbone.vit.norm.")) for name in moved)


def test_micro_batches_add_up_in_float32() -> None:
    torch.manual_seed(4)
    layer = nn.Linear(3, 2)
    twin = LowPrecisionTwin(layer, torch.bfloat16)
    weight = twin.module.get_parameter("weight")
    for _ in range(300):
        weight.grad = torch.ones_like(weight)
        twin.hand_over_gradients()
        assert weight.grad is None
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert (layer.weight.grad == 300).all()  # bfloat16 stops at 256


def test_a_run_goes_on_from_its_state_to_the_bit() -> None:
    model = make_detector(num_denoising=6, batch_norm="train")
    step = make_step(model, O2, adam=True)
    train(step, range(1, 2))
    weights, moments = snapshot(model), copy.deepcopy(step.optimizer.state_dict())
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())
    whole = train(step, range(2, 3))
    other = make_detector(num_denoising=6, batch_norm="train")
    resumed = make_step(other, O2, adam=True)
    other.load_state_dict(weights)
    resumed.optimizer.load_state_dict(moments)
    resumed.enter_epoch()
    assert train(resumed, range(2, 3)) == whole
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in snapshot(other).items())


def test_o2_is_chosen_where_there_is_mixed_precision_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision(CPU, use_amp=True, dtype="bfloat16", opt_level="O2") == O2
    assert choose_precision(CPU, use_amp=True, dtype="bfloat16") == O1
    assert not choose_precision(CPU, use_amp=False, opt_level="O2").casts_weights
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not choose_precision(CPU, use_amp=True, opt_level="O2").casts_weights
