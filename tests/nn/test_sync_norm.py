from pathlib import Path

import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn

from src.nn.sync_norm import GlooSyncBatchNorm2d, synchronise_batch_norm


def test_alone_it_is_batch_norm() -> None:
    torch.manual_seed(0)
    plain, synced = nn.BatchNorm2d(3), GlooSyncBatchNorm2d(3)
    x = torch.randn(4, 3, 5, 2)
    torch.testing.assert_close(synced(x), plain(x))
    torch.testing.assert_close(synced.running_var, plain.running_var)


def test_conversion_keeps_names_and_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    converted = synchronise_batch_norm(model, torch.device("cpu"))
    assert type(converted[1]) is GlooSyncBatchNorm2d
    assert converted.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in converted.state_dict().items())


def normalise(rank: int, x: Tensor) -> tuple[Tensor, ...]:
    norm = GlooSyncBatchNorm2d(3)
    share = (x[:1] if rank == 0 else x[1:]).clone().requires_grad_()
    y = norm(share)
    (y**3).sum().backward()
    return y.detach(), share.grad, norm.running_mean, norm.running_var


@pytest.mark.dist
def test_two_ranks_with_unequal_shares_equal_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 2)
    parts = on_ranks(normalise, 2, tmp_path, x)
    norm = nn.BatchNorm2d(3)
    whole = x.clone().requires_grad_()
    y = norm(whole)
    (y**3).sum().backward()
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y.detach())
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), whole.grad, rtol=1e-4, atol=1e-4)
    for part in parts:
        torch.testing.assert_close(part[2], norm.running_mean)
        torch.testing.assert_close(part[3], norm.running_var)
