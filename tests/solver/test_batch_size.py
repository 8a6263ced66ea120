from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks import on_ranks
from step_cases import NUM_CLASSES, make_detector

from src import assembly, runs
from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.solver import batch_size
from src.solver.batch_size import RECIPE, USABLE, plan_batch, probe
from src.solver.precision import Precision


def linear(first: int, each: int):
    return lambda count: first + each * (count - 1)


@given(
    st.integers(1, 1000), st.integers(1, 100), st.integers(1, 5000), st.integers(0, 1000), st.integers(1, 64)
)
def test_a_plan_fits_and_keeps_the_recipe(first: int, each: int, free: int, fixed: int, world: int) -> None:
    measure = linear(first, each)
    if fixed + first > int(free * USABLE):
        with pytest.raises(ValueError, match="not even one picture fits"):
            plan_batch(measure, free, fixed, world)
        return
    plan = plan_batch(measure, free, fixed, world)
    share = plan.total_batch_size // world
    assert plan.total_batch_size % world == 0
    assert fixed + measure(share) <= free * USABLE
    assert share * plan.accumulate_steps == max(1, RECIPE // world)
    larger = [n for n in range(share + 1, RECIPE // world + 1) if (RECIPE // world) % n == 0]
    assert all(fixed + measure(n) > int(free * USABLE) for n in larger)


def plan_of_rank(rank: int) -> list[int]:
    return list(plan_batch(linear(10, 10), free=100 if rank else 1000, fixed=0, world_size=2))


@pytest.mark.dist
def test_ranks_take_what_the_smallest_has_room_for(tmp_path: Path) -> None:
    assert on_ranks(plan_of_rank, 2, tmp_path) == [[16, 2], [16, 2]]


def test_a_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 2**40

    def plan() -> batch_size.BatchPlan:
        criterion = DFINECriterion(HungarianMatcher(), NUM_CLASSES)
        precision = Precision("cpu", None)
        return probe(make_detector(), criterion, precision, torch.device("cpu"), size_hw=(64, 64))

    monkeypatch.setattr(batch_size, "free_memory", lambda _: free)
    assert plan() == (RECIPE, 1)
    weights = sum(p.numel() * 4 for p in make_detector().parameters())
    free = 4 * weights  # as much as gradients, moments and the average take
    with pytest.raises(ValueError, match="not even one picture"):
        plan()


def test_the_machine_has_memory() -> None:
    assert 2**20 < batch_size.free_memory(torch.device("cpu")) < 2**50


def test_a_container_has_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "CGROUP", tmp_path)
    for name, text in {
        "max": "8000000",
        "current": "7000000",  # most of it files that were read
        "stat": "anon 100000\nactive_file 500000\ninactive_file 6300000",
    }.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert batch_size.free_memory(torch.device("cpu")) == 7_800_000
    (tmp_path / "memory.max").write_text("100\n")  # lowered since
    (tmp_path / "memory.stat").write_text("active_file 0\ninactive_file 0\n")
    assert batch_size.free_memory(torch.device("cpu")) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert batch_size.free_memory(torch.device("cpu")) > 2**20


def test_a_run_measures_once_and_goes_on_with_its_numbers(
    tiny_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = ["train_dataloader.total_batch_size=auto", "train_dataloader.drop_last=False", "epochs=1"]
    config = tiny_config(multi_scale={"base_size_repeat": 1})
    monkeypatch.setattr(batch_size, "RECIPE", 4)
    monkeypatch.setattr(batch_size, "free_memory", lambda _: 2**30)
    device = torch.device("cpu")
    runs.train(assembly.load(config, auto), device)
    folder = tmp_path / "output"
    told = assembly.load(folder / "config.yml")
    assert (told.train_dataloader.total_batch_size, told.accumulate_steps) == (4, 1)

    monkeypatch.setattr(batch_size, "free_memory", lambda _: 0)  # would say that nothing fits
    runs.train(assembly.load(config, [*auto[:2], "epochs=2"]), device, resume="auto")
    assert assembly.load(folder / "config.yml").train_dataloader.total_batch_size == 4
    with pytest.raises(ValueError, match="not even one picture fits"):
        runs.train(assembly.load(config, [*auto, f"output_dir={tmp_path / 'other'}"]), device)
    with pytest.raises(ValueError, match="give one of the two"):
        runs.train(assembly.load(config, [*auto, "accumulate_steps=2"]), device)
    with pytest.raises(ValueError, match="`auto` is for training"):
        runs.train(assembly.load(config, ["val_dataloader.total_batch_size=auto"]), device)
