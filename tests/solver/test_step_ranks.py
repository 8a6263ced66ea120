"""The optimizer step on two ranks; both are started once, for all tests here."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import on_ranks
from step_cases import NUM_CLASSES, make_batch, make_detector, make_step, snapshot, split
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.solver.precision import Precision
from src.structures import Targets

pytestmark = pytest.mark.dist

COUNTS = (2, 0, 3, 1, 0, 0, 4, 1)
O2 = Precision("cpu", torch.bfloat16, casts_weights=True)
Batches = list[tuple[Tensor, Targets]]


def wrap(module: nn.Module) -> nn.Module:
    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def accumulate(mine: Batches) -> tuple[Tensor, dict[str, Tensor]]:
    model = make_detector()
    step = make_step(model)
    return step(wrap(step.callee), mine).losses, snapshot(model)


def meet_nan_on_one(mine: Batches) -> list[tuple[bool, bool]]:
    model = make_detector(batch_norm="train")
    step = make_step(model, adam=True)
    wrapped, (images, targets) = wrap(step.callee), mine[0]
    told = []
    for pictures in (images, images * float("nan") if dist.get_rank() else images, images):
        before = snapshot(model)
        finite = step(wrapped, [(pictures, targets)]).finite
        same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        told.append((finite, same))
    return told


def use_half_precision_weights(mine: Batches) -> dict[str, Tensor]:
    model = make_detector(num_denoising=6)
    step = make_step(model, O2, adam=True)
    if dist.get_rank():  # as after the main rank alone has read a checkpoint
        for parameter in model.parameters():
            parameter.data += 1.0
    step.enter_epoch()
    wrapped = wrap(step.callee)
    for _ in range(2):
        assert step(wrapped, mine).finite
    return snapshot(model)


def train_some_losses(mine: Batches) -> bool:
    model = make_detector(num_denoising=6)
    step = make_step(model)
    step.criterion = DFINECriterion(HungarianMatcher(), NUM_CLASSES, losses=("vfl",))
    wrapped = wrap(step.callee)
    return all(step(wrapped, mine[:1]).finite for _ in range(3))


def train(rank: int, batch: tuple[Tensor, Targets]) -> dict[str, Any]:
    mine = split(batch, 2)[rank::2]
    deeds = (accumulate, meet_nan_on_one, use_half_precision_weights, train_some_losses)
    return {deed.__name__: deed(mine) for deed in deeds}


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Targets]:
    torch.manual_seed(1)
    return make_batch(COUNTS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, batch: tuple[Tensor, Targets]) -> list[dict[str, Any]]:
    return on_ranks(train, 2, tmp_path_factory.mktemp("ranks"), batch)


def test_two_micro_batches_on_two_ranks_are_one_large_batch(
    ranks: list[dict[str, Any]], batch: tuple[Tensor, Targets]
) -> None:
    model = make_detector()
    result = make_step(model)(model, [batch])
    mean = torch.stack([rank["accumulate"][0] for rank in ranks]).mean(0)
    torch.testing.assert_close(mean, result.losses, rtol=1e-5, atol=1e-6)
    for rank in ranks:
        for name, value in model.state_dict().items():
            torch.testing.assert_close(rank["accumulate"][1][name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_one_rank_s_nan_is_skipped_by_both(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["meet_nan_on_one"] == [(True, False), (False, True), (True, False)]


def test_half_precision_weights_stay_the_main_rank_s(ranks: list[dict[str, Any]]) -> None:
    one, two = (rank["use_half_precision_weights"] for rank in ranks)
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different
    start = make_detector(num_denoising=6).state_dict()
    assert max(float((one[name] - start[name]).abs().max()) for name in start) < 0.1


def test_losses_that_leave_heads_out_do_not_stop_ddp(ranks: list[dict[str, Any]]) -> None:
    assert [rank["train_some_losses"] for rank in ranks] == [True, True]
