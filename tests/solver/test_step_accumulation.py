"""Several micro-batches are one large batch: losses, gradients, updated weights."""

import pytest
import torch
from step_cases import make_batch, make_detector, make_step, snapshot, split
from torch import Tensor

from src.solver.step import StepResult

COUNTS = (2, 0, 3, 1, 0, 0, 4, 1)  # as four micro-batches, the third has no object


def run(
    size: int, counts: tuple[int, ...] = COUNTS, denoising: int = 0
) -> tuple[StepResult, dict[str, Tensor], dict[str, Tensor]]:
    """One step over the same 8 pictures in micro-batches of `size`; result, gradients and weights."""
    model = make_detector(num_denoising=denoising)
    torch.manual_seed(1)
    batch = make_batch(counts)
    result = make_step(model)(model, split(batch, size))
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return result, gradients, snapshot(model)


@pytest.mark.parametrize("size", [4, 2])
@pytest.mark.parametrize("counts", [COUNTS, (0, 1, 0, 0, 0, 0, 0, 0)], ids=["objects", "one object"])
def test_losses_gradients_and_weights_are_the_large_batch_s(size: int, counts: tuple[int, ...]) -> None:
    one, gradients, weights = run(8, counts)
    many, parts_gradients, parts_weights = run(size, counts)
    assert many.names == one.names
    torch.testing.assert_close(many.losses, one.losses, rtol=1e-5, atol=1e-6)
    assert parts_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            parts_gradients[name], gradient, rtol=1e-4, atol=2e-5 * scale + 1e-8, msg=name
        )
    for name, value in weights.items():
        torch.testing.assert_close(parts_weights[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_each_micro_batch_on_its_own_would_not_be_the_large_batch() -> None:
    """What the tolerances above can see."""
    one, _, _ = run(8)
    model = make_detector()
    torch.manual_seed(1)
    step = make_step(model)
    apart = torch.stack(
        [
            torch.stack(list(step.criterion(model(images, targets), targets).values()))
            for images, targets in split(make_batch(COUNTS), 2)
        ]
    ).mean(0)
    assert (apart - one.losses).abs().max() > 1e-2


def test_denoising_draws_alike_in_both_passes_and_statistics_move_once() -> None:
    """The counting pass leaves no trace: afterwards generator and norms are where one pass leaves them."""
    model = make_detector(num_denoising=6, batch_norm="train")
    step = make_step(model, lr=0.0)
    parts = split(make_batch((1, 2, 0, 2)), 2)
    alone = make_detector(num_denoising=6, batch_norm="train")
    torch.manual_seed(2)
    with torch.no_grad():
        for images, targets in parts:
            alone(images, targets)
    left = torch.get_rng_state()
    torch.manual_seed(2)
    assert step(model, parts).finite
    assert torch.equal(torch.get_rng_state(), left)
    for (name, ours), theirs in zip(model.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_one_micro_batch_runs_forward_once() -> None:
    model = make_detector()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    make_step(model)(model, split(make_batch((1, 2)), 2))
    assert len(calls) == 1
