"""What a whole training step costs the host: waits for the device, and operations of its parts."""

import warnings

import pytest
import torch
from ledger import Ledger, watch_copies
from step_cases import make_batch, make_detector, make_step
from torch import nn


def trained_step(num_denoising=20):
    model = make_detector(num_denoising=num_denoising)
    step = make_step(model, adam=True)
    step(model, [make_batch((3, 0, 5))])
    return model, step


def test_a_step_waits_for_the_costs_and_for_the_gradients_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what would copy to the host, were the tensors on a GPU; denoising, optimizer, average included."""
    model, step = trained_step()
    batch = make_batch((3, 0, 5))
    copies = watch_copies(monkeypatch)
    with Ledger() as ledger:
        assert step(model, [batch]).finite
    assert copies == ["cpu", "__bool__"]
    assert ledger.waits() == ["_local_scalar_dense"]  # of __bool__


@pytest.mark.parametrize("num_tensors", [3, 40])
def test_optimizer_and_average_cost_the_same_for_any_number_of_tensors(num_tensors: int) -> None:
    model = nn.ParameterList([torch.randn(4) for _ in range(num_tensors)])
    step = make_step(model, adam=True)
    for parameter in model:
        parameter.grad = torch.randn_like(parameter)
    step.optimizer.step()
    with Ledger() as optimizer:
        step.optimizer.step()
    assert step.ema is not None
    step.ema.update(model)
    with Ledger() as average:
        step.ema.update(model)
    assert dict(optimizer.counts) == {"_foreach_add_": 1, "_fused_adamw_": 1}
    assert dict(average.counts) == {"_foreach_lerp_": 1}


def test_a_vit_makes_its_positions_once_for_all_blocks() -> None:
    model = make_detector()
    assert len(model.backbone.vit.blocks) == 2
    with Ledger() as ledger:
        model.backbone(torch.rand(1, 3, 64, 64))
    assert ledger.counts["sin"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_waits_twice_in_a_step() -> None:
    model = make_detector(num_denoising=20).cuda()
    step = make_step(model, adam=True)
    images, targets = make_batch((3, 0, 5))
    batch = images.cuda(), targets.to("cuda")
    step(model, [batch])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            step(model, [batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    messages = [str(wait.message) for wait in waits if "synchroniz" in str(wait.message)]
    assert len(messages) == 2, messages
