"""Small building blocks."""

import pytest
import torch
from torch import nn

from src.nn.layers import (
    MLP,
    ConvNorm,
    FrozenBatchNorm2d,
    SelfAttention,
    flatten_map,
    freeze_batch_norms,
    make_activation,
)


def test_conv_norm_keeps_the_size_and_halves_it():
    x = torch.rand(1, 4, 6, 8)
    assert ConvNorm(4, 5, 3)(x).shape == (1, 5, 6, 8)
    assert ConvNorm(4, 4, 3, stride=2, groups=4)(x).shape == (1, 4, 3, 4)


def test_conv_norm_applies_its_activation(fill_by_name):
    x = torch.randn(1, 4, 6, 8)
    plain = fill_by_name(ConvNorm(4, 5, 1)).eval()
    for name in ("relu", "silu", "gelu"):
        active = fill_by_name(ConvNorm(4, 5, 1, act=name)).eval()
        torch.testing.assert_close(active(x), make_activation(name)(plain(x)))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="relu, silu, gelu"):
        make_activation("swish")


def test_mlp_starts_at_zero_if_asked_to():
    x = torch.rand(2, 3)
    assert MLP(3, 8, 4, 3, zero_last=True)(x).abs().max() == 0
    assert MLP(3, 8, 4, 3)(x).abs().max() > 0


def test_frozen_batch_norm_is_the_norm_in_evaluation(fill_by_name):
    net = fill_by_name(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).eval()
    x = torch.rand(2, 3, 5, 5)
    expected = net(x)
    state = net.state_dict()
    freeze_batch_norms(net)
    assert isinstance(net[1], FrozenBatchNorm2d)
    net.train()
    torch.testing.assert_close(net(x), expected)
    assert sum(p.numel() for p in net.parameters()) == 3 * 4 + 4
    assert "1.num_batches_tracked" in state
    net.load_state_dict(state)  # strictly, with the count that a trained norm's file holds
    torch.testing.assert_close(net(x), expected)


def test_frozen_batch_norm_keeps_the_dtype_under_autocast():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(nn.BatchNorm2d(4)))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.rand(1, 3, 4, 4)).dtype == torch.bfloat16


def test_flatten_map_goes_row_by_row():
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    torch.testing.assert_close(flatten_map(x)[0, :, 0], torch.arange(6.0))


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_is_torchs(masked):
    torch.manual_seed(1)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    torch.manual_seed(1)
    ours = SelfAttention(12, 3, 0.0)
    state = theirs.state_dict()
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.state_dict().items())
    with torch.no_grad():
        ours.in_proj_bias.normal_(), theirs.in_proj_bias.copy_(ours.in_proj_bias)
    query, value = torch.randn(2, 2, 7, 12)
    blocked = torch.rand(7, 7) < 0.4
    blocked = blocked.fill_diagonal_(False) if masked else None
    expected, _ = theirs(query, query, value, attn_mask=blocked, need_weights=False)
    torch.testing.assert_close(ours(query, value, blocked), expected, atol=1e-6, rtol=0)


def test_self_attention_drops_in_training_alone():
    attention = SelfAttention(8, 2, 0.5)
    x = torch.randn(1, 6, 8)
    torch.testing.assert_close(attention.eval()(x, x), attention(x, x))
    assert not torch.equal(attention.train()(x, x), attention(x, x))
