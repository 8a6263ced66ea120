"""Gradient checkpointing of the encoder: the same step, less memory, and statistics updated once."""

import copy
from pathlib import Path

import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.nn.encoder import HybridEncoder
from src.nn.encoder.checkpointing import checkpointed
from src.nn.sync_norm import GlooSyncBatchNorm2d, synchronise_batch_norm
from src.structures import Level

LEVELS = (Level(12, 8), Level(16, 16), Level(16, 32))
BASE = {"hidden_dim": 16, "nhead": 4, "dim_feedforward": 24, "depth_mult": 0.34, "expansion": 0.5}
LIGHT = {"fusion": "sum", "fuse_block": "light", "input_projection": "where_needed"}


def make_maps(requires_grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 12, 16, 24), (2, 16, 8, 12), (2, 16, 4, 6)]
    return [torch.rand(shape, generator=generator).requires_grad_(requires_grad) for shape in shapes]


def pair(**knobs: object) -> tuple[HybridEncoder, HybridEncoder]:
    """The same encoder without and with checkpointing."""
    torch.manual_seed(0)
    plain = HybridEncoder(LEVELS, **{**BASE, **knobs})
    other = copy.deepcopy(plain)
    other.gradient_checkpointing = True
    return plain.train(), other.train()


def step(encoder: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)  # dropout
    outputs = encoder(maps)
    sum(x.float().square().mean() for x in outputs).backward()
    return [x.detach() for x in outputs]


def same_buffers(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.named_buffers(), second.named_buffers(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def close_gradients(first: nn.Module, second: nn.Module) -> None:
    for (name, p), q in zip(first.named_parameters(), second.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None, name
        torch.testing.assert_close(q.grad, p.grad, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("knobs", [{}, LIGHT, {"dropout": 0.5, "num_encoder_layers": 2}], ids=str)
def test_the_step_is_the_same(knobs: dict[str, object], dtype: torch.dtype) -> None:
    plain, other = pair(**knobs)
    own = dict(other.named_buffers())
    first, second = make_maps(), make_maps()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected, given = step(plain, first), step(other, second)
    assert all(torch.equal(x, y) for x, y in zip(expected, given, strict=True))
    close_gradients(plain, other)
    for x, y in zip(first, second, strict=True):
        torch.testing.assert_close(y.grad, x.grad)
    assert same_buffers(plain, other)
    norms = [m for m in other.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.num_batches_tracked == 1 for m in norms)
    assert all(buffer is own[name] for name, buffer in other.named_buffers())  # an average may hold them


def test_much_less_is_kept() -> None:
    from src.solver.batch_size import kept_bytes  # here, since it loads more than the ranks below need

    plain, other = pair()
    maps = make_maps(requires_grad=False)
    assert kept_bytes(other, lambda: other(maps)) < 0.35 * kept_bytes(plain, lambda: plain(maps))


def test_it_is_off_where_no_gradient_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, other = pair()
    with torch.no_grad():
        given, expected = other(make_maps()), plain(make_maps())
    assert all(torch.equal(x, y) for x, y in zip(given, expected, strict=True)) and same_buffers(plain, other)

    def refuse(*_: object) -> None:
        raise AssertionError("an encoder in evaluation is not checkpointed")

    monkeypatch.setattr("src.nn.encoder.hybrid_encoder.checkpointed", refuse)
    other.eval()(make_maps())
    with pytest.raises(AssertionError, match="in evaluation"):
        other.train()(make_maps())


def test_synchronised_norms_update_once_too() -> None:
    norm = GlooSyncBatchNorm2d(3)
    checkpointed(norm, torch.rand(2, 3, 4, 4, requires_grad=True)).square().sum().backward()
    assert norm.num_batches_tracked == 1


def train_encoders(rank: int) -> None:
    encoders = [synchronise_batch_norm(e, torch.device("cpu")) for e in pair()]
    for encoder in encoders:
        maps = [x[rank : rank + 1].detach() for x in make_maps()]
        step(DistributedDataParallel(encoder, bucket_cap_mb=0.01), maps)
    close_gradients(*encoders)
    assert same_buffers(*encoders)


@pytest.mark.dist
def test_two_ranks_with_synchronised_norms(tmp_path: Path) -> None:
    assert on_ranks(train_encoders, 2, tmp_path) == [None, None]
