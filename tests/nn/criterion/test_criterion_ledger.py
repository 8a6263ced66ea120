"""How many operations and waits a step's losses cost: counts hold on a shared machine, times do not."""

import warnings
from typing import Any

import pytest
import torch
from criterion_cases import make_output, make_targets
from ledger import Ledger, watch_copies

from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.solver.batch_size import kept_bytes
from src.structures import Targets, TrainOutput


def count(layers: int, counts: tuple[int, ...] = (3, 0, 5), class_loss: str = "vfl") -> tuple[Ledger, Ledger]:
    """Operations of the forward and of the backward pass."""
    torch.manual_seed(0)
    output, targets = make_output(len(counts), layers=layers, max_count=max(counts)), make_targets(counts)
    criterion = DFINECriterion(HungarianMatcher(), 5, losses=(class_loss, "boxes", "local"))
    with Ledger() as forward:
        named = criterion(output, targets)
    total = torch.stack(list(named.values())).sum()
    with Ledger() as backward:
        total.backward()
    return forward, backward


@pytest.mark.parametrize("class_loss", ["vfl", "mal"])
def test_number_of_operations_does_not_depend_on_the_depth(class_loss: str) -> None:
    three, six, twelve = (count(n, class_loss=class_loss)[0].counts.total() for n in (3, 6, 12))
    assert six <= 600
    assert three == six == twelve


def test_number_of_operations_does_not_depend_on_the_objects() -> None:
    few, many = count(3, (1, 0, 0))[0].counts.total(), count(3, (30, 20, 10))[0].counts.total()
    assert few == many


def test_memory_grows_with_the_batch_and_never_with_its_square() -> None:
    """What autograd keeps, and all that the operations give, matcher included."""

    def memory(batch: int) -> tuple[int, int]:
        torch.manual_seed(0)
        output, targets = make_output(batch, queries=24, groups=1, max_count=20), make_targets((20,) * batch)
        criterion = DFINECriterion(HungarianMatcher(), 5)
        with Ledger() as ledger:
            kept = kept_bytes(criterion, lambda: criterion(output, targets))
        return kept, ledger.nbytes

    for small, twice, four_times in zip(memory(8), memory(16), memory(32), strict=True):
        assert four_times - twice <= 2.02 * (twice - small)  # the pairs of the union vary a little


def test_host_waits_once_forward_and_never_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what would copy to the host, were the tensors on a GPU."""
    copies = watch_copies(monkeypatch)
    forward, backward = count(6)
    assert copies == ["cpu"]
    assert not forward.waits() and not backward.waits()


def run_on_gpu(output: TrainOutput, targets: Targets) -> dict[str, torch.Tensor]:
    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().cuda().requires_grad_(value.requires_grad)
        if isinstance(value, tuple):
            moved = [move(x) for x in value]
            return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
        return value

    on_gpu, there = move(output), targets.to("cuda")
    criterion = DFINECriterion(HungarianMatcher(), 5)
    criterion(on_gpu, there)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            named = criterion(on_gpu, there)
            torch.stack(list(named.values())).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    messages = [str(wait.message) for wait in waits if "synchroniz" in str(wait.message)]
    assert len(messages) == 1, messages
    return named


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_waits_once_and_gives_the_same_losses() -> None:
    torch.manual_seed(1)
    output, targets = make_output(3, layers=6, max_count=5), make_targets((3, 0, 5))
    expected = DFINECriterion(HungarianMatcher(), 5)(output, targets)
    named = run_on_gpu(output, targets)
    for name, value in expected.items():
        torch.testing.assert_close(named[name].cpu(), value, rtol=1e-4, atol=1e-5)
