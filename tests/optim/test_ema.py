import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from src.optim import ModelEMA, fitting_decay


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def train_step(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    model(torch.randn(16, 4)).square().mean().backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(0.5 * p.grad)
                p.grad = None


def test_ten_updates_equal_a_slow_reference() -> None:
    model = make_model().train()
    ema = ModelEMA(model, decay=0.9, warmups=5)
    reference = {k: v.clone().double() for k, v in model.state_dict().items()}
    for t in range(1, 11):
        train_step(model, t)
        ema.update(model)
        decay = 0.9 * (1 - math.exp(-t / 5))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                reference[name] = decay * reference[name] + (1 - decay) * value.double()
            else:
                reference[name] = value.double()
    got = ema.module.state_dict()
    assert got.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(got[name].double(), value, atol=1e-6, rtol=1e-5)
    assert ema.updates == 10
    assert int(got["1.num_batches_tracked"]) == 10


def test_batch_norm_statistics_are_averaged_not_copied() -> None:
    model = make_model().train()
    ema = ModelEMA(model, decay=0.5, warmups=0)
    train_step(model, 1)
    ema.update(model)
    start, now = torch.zeros(8), model[1].running_mean
    torch.testing.assert_close(ema.module[1].running_mean, 0.5 * (start + now))


def test_the_average_is_a_frozen_copy_in_evaluation_mode() -> None:
    model = make_model().train()
    ema = ModelEMA(model)
    assert not ema.module.training
    assert model.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in model.parameters())
    before = copy.deepcopy(ema.module.state_dict())
    train_step(model, 1)
    for name, value in ema.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_frozen_weights_stay_bit_identical_and_follow_once_released() -> None:
    model = make_model().train()
    model[0].requires_grad_(False)
    ema = ModelEMA(model, decay=0.9, warmups=3)
    for t in range(5):
        train_step(model, t)
        ema.update(model)
    assert torch.equal(ema.module[0].weight, model[0].weight)
    model[0].requires_grad_(True)
    before = ema.module[0].weight.clone()
    train_step(model, 9)
    ema.update(model)
    assert not torch.equal(ema.module[0].weight, before)


def test_constants_stay_what_they_are() -> None:
    model = make_model()
    mask = torch.tensor([0.0, -math.inf, math.inf])
    model.register_buffer("mask", mask)
    model.register_buffer("periods", torch.linspace(0.1, 99, 7))
    ema = ModelEMA(model, decay=0.7, warmups=0)
    for _ in range(3):
        ema.update(model)
    assert torch.equal(ema.module.mask, mask)
    assert torch.equal(ema.module.periods, model.periods)


def test_shared_weights_are_averaged_once() -> None:
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    ema = ModelEMA(model, decay=0.5, warmups=0)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1.0
    ema.update(model)
    assert ema.module[1].weight is ema.module[0].weight
    torch.testing.assert_close(ema.module[0].weight, start + 0.5)


def test_restart_really_changes_the_decay() -> None:
    # upstream's restart leaves the decay that acts at 0.9999, whatever it is given
    model = nn.Linear(1, 1, bias=False)
    ema = ModelEMA(model, decay=0.9999, warmups=0)
    with torch.no_grad():
        ema.module.weight.fill_(0.0)
        model.weight.fill_(1.0)
    ema.update(model)
    assert float(ema.module.weight) == pytest.approx(1e-4, rel=1e-3)
    ema.restart(0.9)
    with torch.no_grad():
        ema.module.weight.fill_(0.0)
    ema.update(model)
    assert ema.decay == 0.9
    assert ema.effective_decay == 0.9
    assert float(ema.module.weight) == pytest.approx(0.1)


def test_restart_from_a_model_takes_its_weights_and_is_warm_already() -> None:
    model = make_model().train()
    ema = ModelEMA(model, decay=0.999, warmups=100)
    for t in range(3):
        train_step(model, t)
        ema.update(model)
    ema.restart(0.99, from_model=model)
    for name, value in model.state_dict().items():
        assert torch.equal(ema.module.state_dict()[name], value)
    assert ema.updates == 3
    assert not any(p.requires_grad for p in ema.module.parameters())
    train_step(model, 4)
    ema.update(model)
    assert ema.effective_decay == pytest.approx(0.99 * (1 - math.exp(-4 / 100)))


def test_state_dict_brings_weights_updates_and_a_restarted_decay_back() -> None:
    model = make_model().train()
    ema = ModelEMA(model, decay=0.9999, warmups=10)
    ema.restart(0.98)
    train_step(model, 1)
    ema.update(model)
    other = ModelEMA(make_model(), decay=0.9999, warmups=10)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    for each in (ema, other):
        each.update(model)
    assert (other.updates, other.decay) == (2, 0.98)
    for name, value in ema.module.state_dict().items():
        assert torch.equal(other.module.state_dict()[name], value)


def test_another_model_of_the_same_make_can_be_followed() -> None:
    first, second = make_model(), make_model()
    ema = ModelEMA(first, decay=0.5, warmups=0)
    ema.update(first)
    with torch.no_grad():
        second[0].weight.fill_(3.0)
    before = ema.module[0].weight.clone()
    ema.update(second)
    torch.testing.assert_close(ema.module[0].weight, 0.5 * before + 1.5)


def test_a_model_without_tensors_is_no_trouble() -> None:
    model = nn.Identity()
    ema = ModelEMA(model)
    ema.update(model)
    assert ema.updates == 1


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay may be 0 or more, and below 1"):
        ModelEMA(make_model(), decay=decay)
    with pytest.raises(ValueError, match="decay may be"):
        ModelEMA(make_model()).restart(decay)


def test_a_foreign_model_and_negative_warmups_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in 1 tensors: bias"):
        ModelEMA(nn.Linear(2, 2)).update(nn.Linear(2, 2, bias=False))
    with pytest.raises(ValueError, match=r"ema\.warmups is -1"):
        ModelEMA(make_model(), warmups=-1)


@given(st.floats(0, 0.99999), st.integers(1, 10**6))
def test_the_average_spans_at_most_a_fifth_of_the_run(decay: float, total_steps: int) -> None:
    fitting = fitting_decay(decay, total_steps=total_steps)
    assert 0 <= fitting <= decay
    assert 1 / (1 - fitting) <= max(1, total_steps / 5) * (1 + 1e-9)
    if 1 / (1 - decay) < total_steps / 5:
        assert fitting == decay
