import logging
import math
from typing import Any

import pytest
import torch

from src.optim import build_schedule
from src.optim.schedules import effective_warmup_steps


def optimizer_of(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def learning_rate_factor(step: int, **how: Any) -> float:
    return build_schedule(optimizer_of(1.0), **how).lr_lambdas[0](step)


def test_multi_step_falls_at_its_milestones() -> None:
    def factor(step: int) -> float:
        return learning_rate_factor(step, total_steps=100, steps_per_epoch=10, milestones=(3, 6), gamma=0.1)

    assert [factor(s) for s in (0, 29)] == [1.0, 1.0]
    assert [factor(s) for s in (30, 59)] == pytest.approx([0.1, 0.1])
    assert [factor(s) for s in (60, 99)] == pytest.approx([0.01, 0.01])
    assert learning_rate_factor(99, total_steps=100, steps_per_epoch=10, milestones=(500,)) == 1.0


def test_cosine_by_hand() -> None:
    def factor(step: int) -> float:
        return learning_rate_factor(step, total_steps=100, steps_per_epoch=10, kind="CosineLR", gamma=0.2)

    assert factor(0) == 1.0
    assert factor(25) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.sqrt(0.5)))
    assert factor(50) == pytest.approx(0.6)
    assert factor(100) == factor(130) == pytest.approx(0.2)


def test_flat_cosine_is_constant_at_both_ends() -> None:
    def factor(step: int) -> float:
        return learning_rate_factor(
            step,
            total_steps=100,
            steps_per_epoch=10,
            kind="FlatCosineLR",
            gamma=0.5,
            flat_epochs=4,
            no_aug_epochs=2,
        )

    assert {factor(s) for s in (0, 20, 40)} == {1.0}
    assert factor(60) == pytest.approx(0.75)
    assert [factor(s) for s in (80, 90, 99)] == pytest.approx([0.5] * 3)


def test_flat_cosine_without_flat_epochs_is_flat_for_half_of_the_run() -> None:
    def factor(step: int) -> float:
        return learning_rate_factor(step, total_steps=100, steps_per_epoch=10, kind="FlatCosineLR", gamma=0.0)

    assert (factor(50), factor(75)) == (1.0, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("warmup", "values"),
    [("LinearWarmup", [0.25, 0.5, 0.75, 1.0, 1.0]), ("QuadraticWarmup", [1 / 16, 0.25, 9 / 16, 1.0, 1.0])],
)
def test_warmup_by_hand(warmup: str, values: list[float]) -> None:
    got = [
        learning_rate_factor(s, total_steps=100, steps_per_epoch=10, warmup=warmup, warmup_steps=4)
        for s in range(5)
    ]
    assert got == pytest.approx(values)


def test_warmup_multiplies_the_schedule() -> None:
    both = learning_rate_factor(
        1, total_steps=20, steps_per_epoch=1, kind="CosineLR", warmup="LinearWarmup", warmup_steps=4
    )
    alone = learning_rate_factor(1, total_steps=20, steps_per_epoch=1, kind="CosineLR")
    assert both == pytest.approx(0.5 * alone)


def test_a_long_warmup_is_shortened_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert effective_warmup_steps(500, total_steps=100) == 20
    assert effective_warmup_steps(500, total_steps=2500) == 500
    with caplog.at_level(logging.WARNING):
        optimizer = optimizer_of(1.0)
        schedule = build_schedule(
            optimizer, total_steps=100, steps_per_epoch=10, warmup="LinearWarmup", warmup_steps=500
        )
        for _ in range(19):
            optimizer.step()
            schedule.step()
    assert schedule.get_last_lr() == [1.0]
    assert [r.getMessage() for r in caplog.records] == [
        "the warm-up of 500 steps is shortened to 20, a fifth of the run's 100 steps"
    ]


def test_a_warmup_that_fits_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    build_schedule(
        optimizer_of(1.0), total_steps=100, steps_per_epoch=10, warmup="LinearWarmup", warmup_steps=20
    )
    build_schedule(optimizer_of(1.0), total_steps=100, steps_per_epoch=10, warmup=None, warmup_steps=500)
    assert not caplog.records


def test_every_group_keeps_its_own_rate_and_resumes_where_it_was() -> None:
    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = optimizer_of(1.0, 0.04)
        return optimizer, build_schedule(
            optimizer,
            total_steps=50,
            steps_per_epoch=5,
            kind="CosineLR",
            warmup="QuadraticWarmup",
            warmup_steps=7,
        )

    def run(
        optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, steps: int
    ) -> list[list[float]]:
        rates = []
        for _ in range(steps):
            rates.append([g["lr"] for g in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        return rates

    whole = run(*make(), 50)
    assert whole[3][1] == pytest.approx(0.04 * whole[3][0])
    first, schedule = make()
    half = run(first, schedule, 21)
    second, resumed = make()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert half + run(second, resumed, 29) == whole


def test_a_changed_base_rate_acts_from_the_next_step() -> None:
    optimizer = optimizer_of(1.0, 1.0)
    schedule = build_schedule(optimizer, total_steps=10, steps_per_epoch=1)
    schedule.base_lrs[1] = 0.1
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [1.0, 0.1]


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        ({"kind": "StepLR"}, "'StepLR'; it may be MultiStepLR, CosineLR, FlatCosineLR"),
        ({"warmup": "Warm"}, "'Warm'; it may be LinearWarmup, QuadraticWarmup"),
        ({"total_steps": 0}, "0 steps"),
        ({"warmup_steps": -1}, "-1 of warm-up"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        (
            {"kind": "FlatCosineLR", "flat_epochs": 8, "no_aug_epochs": 2},
            "flat_epochs 8 and no_aug_epochs 2.*run has 10;",
        ),
    ],
)
def test_faults_are_named(faulty: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_schedule(optimizer_of(1.0), **{"total_steps": 100, "steps_per_epoch": 10, **faulty})  # type: ignore[arg-type]
