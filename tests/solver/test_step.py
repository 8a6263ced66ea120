"""The optimizer step: precision, clipping, and what happens when gradients are not finite."""

import pytest
import torch
from torch import Tensor, nn

from src.optim import ModelEMA, build_schedule
from src.solver.precision import Precision, choose_precision
from src.solver.step import TrainingStep
from src.structures import Targets

CPU = torch.device("cpu")
NO_TARGETS = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (0,), (1,), ((4, 4),))


class Toy(nn.Module):
    """A norm and a linear layer; its output is what the toy criterion averages."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 1)

    def forward(self, images: Tensor, targets: Targets) -> Tensor:
        assert targets is NO_TARGETS
        return self.head(self.norm(images).mean((2, 3)))


def make_step(model: nn.Module, precision: Precision, *, clip: float = 0.0, lr: float = 0.1) -> TrainingStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for group in optimizer.param_groups:
        group["initial_lr"] = lr
    schedule = build_schedule(optimizer, total_steps=100, steps_per_epoch=10)

    def criterion(output: Tensor, targets: Targets) -> dict[str, Tensor]:  # noqa: ARG001 - as criteria are called
        return {"loss_a": output.float().square().mean(), "loss_b": output.float().mean()}

    ema = ModelEMA(model, decay=0.5, warmups=0)
    return TrainingStep(model, criterion, optimizer, schedule, ema, precision, clip_max_norm=clip)


def states(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_step_updates_weights_average_and_schedule() -> None:
    torch.manual_seed(0)
    model = Toy().train()
    step = make_step(model, Precision("cpu", None))
    before = states(model)
    result = step(model, [(torch.rand(2, 3, 4, 4), NO_TARGETS)])
    assert result.names == ("loss_a", "loss_b")
    assert result.finite
    assert not torch.equal(model.head.weight, before["head.weight"])
    assert step.ema is not None
    expected = 0.5 * before["head.weight"] + 0.5 * model.head.weight
    torch.testing.assert_close(step.ema.module.get_parameter("head.weight"), expected.detach())
    assert step.schedule.last_epoch == 1


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_step_that_is_not_finite_changes_nothing(dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    model = Toy().train()
    step = make_step(model, Precision("cpu", dtype))
    assert step(model, [(torch.rand(2, 3, 4, 4), NO_TARGETS)]).finite
    assert step.ema is not None
    before, average = states(model), states(step.ema.module)
    images = torch.rand(2, 3, 4, 4)
    images[0, 0, 0, 0] = float("inf")
    assert not step(model, [(images, NO_TARGETS)]).finite
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(v, average[n]) for n, v in step.ema.module.state_dict().items())
    assert step(model, [(torch.rand(2, 3, 4, 4), NO_TARGETS)]).finite


def test_clipping_bounds_the_update_and_zero_never_clips() -> None:
    torch.manual_seed(0)
    moved = []
    for clip in (0.0, 1e-3):
        torch.manual_seed(1)
        model = Toy().train()
        before = states(model)
        make_step(model, Precision("cpu", None), clip=clip, lr=1.0)(
            model, [(torch.rand(2, 3, 4, 4), NO_TARGETS)]
        )
        moved.append(
            float(sum((p.detach() - before[n]).square().sum() for n, p in model.named_parameters()) ** 0.5)
        )
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)
    assert moved[0] > 0.1


def test_precision_is_float32_unless_asked() -> None:
    assert choose_precision(CPU, use_amp=False).dtype is None
    assert not choose_precision(CPU, use_amp=False).scaler().is_enabled()


def test_stated_types_are_taken_and_float16_alone_is_scaled() -> None:
    half = choose_precision(CPU, use_amp=True, dtype="float16")
    brain = choose_precision(CPU, use_amp=True, dtype="bfloat16")
    assert (half.dtype, brain.dtype) == (torch.float16, torch.bfloat16)
    assert half.scaler().is_enabled()
    assert not brain.scaler().is_enabled()


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_where_the_cpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert choose_precision(CPU, use_amp=True).dtype == (torch.bfloat16 if native else None)
