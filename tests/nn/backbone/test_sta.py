from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from src.nn.backbone.sta import ChannelNorm, DetailBranch, PositionCode, SpatialTuningAdapter

D = 12
CHANNELS = (8, 10, 14)


def adapter(num_taps: int = 1, **knobs: Any) -> SpatialTuningAdapter:
    torch.manual_seed(0)
    defaults = {
        "out_channels": CHANNELS,
        "upsample": "bilinear",
        "downsample": "pool",
        "layer_norm": False,
        "position_grid": 0,
        "detail_channels": 0,
    }
    return SpatialTuningAdapter(D, num_taps, **{**defaults, **knobs})


def taps(count: int, height: int = 4, width: int = 6) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, D, height, width, generator=generator) for _ in range(count))


def run(sta: SpatialTuningAdapter, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    height, width = maps[0].shape[-2:]
    return sta(maps, torch.rand(2, 3, 16 * height, 16 * width, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("knobs", [{}, {"downsample": "conv", "detail_channels": 4}])
def test_shapes(count: int, knobs: dict[str, Any]) -> None:
    outputs = run(adapter(count, **knobs), taps(count, 2, 6))
    assert [tuple(x.shape) for x in outputs] == [(2, 8, 4, 12), (2, 10, 2, 6), (2, 14, 1, 3)]


def test_three_taps_feed_one_level_each_shallow_to_p8() -> None:
    sta = adapter(3).eval()
    maps = taps(3)
    base = run(sta, maps)
    for index in range(3):
        changed = list(maps)
        changed[index] = changed[index] + 1.0
        same = [torch.equal(x, y) for x, y in zip(base, run(sta, tuple(changed)), strict=True)]
        assert same == [level != index for level in range(3)]


@pytest.mark.parametrize("count", [2, 4])
def test_other_counts_are_averaged(count: int) -> None:
    maps = taps(count)
    averaged = run(adapter(1).eval(), (torch.stack(maps).mean(0),))
    for given, expected in zip(run(adapter(count).eval(), maps), averaged, strict=True):
        torch.testing.assert_close(given, expected)


def test_levels_by_a_plain_reference() -> None:
    sta = adapter(1).eval()
    (x,) = maps = taps(1)
    p8, p16, p32 = run(sta, maps)
    project = [layer.weight for layer in sta.projections]
    scale = (1 + 1e-5) ** -0.5  # BatchNorm as it starts: mean 0, variance 1
    larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(p8, scale * F.conv2d(larger, project[0]))
    torch.testing.assert_close(p16, scale * F.conv2d(x, project[1]))
    smaller = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(p32, scale * F.conv2d(smaller, project[2]))


def test_nearest_repeats_cells() -> None:
    p8, _, _ = run(adapter(1, upsample="nearest").eval(), taps(1))
    assert torch.equal(p8[:, :, ::2, ::2], p8[:, :, 1::2, 1::2])
    smooth, _, _ = run(adapter(1).eval(), taps(1))
    assert not torch.equal(smooth[:, :, ::2, ::2], smooth[:, :, 1::2, 1::2])


def test_conv_downsampling_is_learnt() -> None:
    sta = adapter(1, downsample="conv")
    assert sta.halve is not None
    run(sta, taps(1))[2].square().mean().backward()
    assert sta.halve.weight.grad is not None and sta.halve.weight.grad.abs().sum() > 0
    assert adapter(1).halve is None


def test_detail_branch_equals_one_projection_of_both_maps_concatenated() -> None:
    sta = adapter(1, detail_channels=4).eval()
    assert sta.detail is not None
    images = torch.rand(2, 3, 64, 96)
    (x,) = maps = taps(1)
    _, p16, _ = sta(maps, images)
    both = torch.cat((x, sta.detail(images)[1]), 1)
    weight = torch.cat((sta.projections[1].weight, sta.detail_projections[1].weight), 1)
    torch.testing.assert_close(p16, F.conv2d(both, weight) * (1 + 1e-5) ** -0.5)


@pytest.mark.parametrize(("channels", "parameters"), [(16, 60_688), (32, 241_184)])
def test_detail_branch_has_deimv2s_size(channels: int, parameters: int) -> None:
    assert sum(p.numel() for p in DetailBranch(channels).parameters()) == parameters


def test_layer_norm_takes_scale_and_shift_of_a_tap_away() -> None:
    (x,) = taps(1)
    torch.testing.assert_close(ChannelNorm(D)(5 * x + 3), ChannelNorm(D)(x), atol=1e-4, rtol=0)
    normed, plain = adapter(1, layer_norm=True).eval(), adapter(1).eval()
    for given, moved in zip(run(normed, (x,)), run(normed, (5 * x + 3,)), strict=True):
        torch.testing.assert_close(given, moved, atol=1e-4, rtol=0)
    assert not torch.allclose(run(plain, (x,))[1], run(plain, (5 * x + 3,))[1], atol=1e-2)


def test_position_code_follows_the_input_size() -> None:
    code = PositionCode(D, 4)
    for size in ((4, 4), (2, 6), (7, 3)):
        zeros = torch.zeros(1, D, *size)
        expected = F.interpolate(code.code, size=size, mode="bilinear", align_corners=False)
        assert torch.equal(code(zeros), expected)
    plain, coded = adapter(1), adapter(1, position_grid=4)
    coded.load_state_dict({**coded.state_dict(), **plain.state_dict()})
    assert not torch.allclose(run(coded, taps(1))[1], run(plain, taps(1))[1])


@pytest.mark.parametrize(
    "knobs",
    [
        {"out_channels": (8, 0, 8)},
        {"out_channels": (8, 8)},
        {"position_grid": -1},
        {"detail_channels": -4},
        {"upsample": "bicubic"},
        {"downsample": "max"},
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs))):
        adapter(1, **knobs)


def test_every_parameter_learns() -> None:
    sta = adapter(3, layer_norm=True, position_grid=3, detail_channels=4, downsample="conv")
    sum((x * torch.randn_like(x)).sum() for x in run(sta, taps(3))).backward()
    assert [name for name, p in sta.named_parameters() if p.grad is None or not p.grad.any()] == []
