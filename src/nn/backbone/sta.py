"""The spatial tuning adapter: three maps at strides 8, 16 and 32 from a ViT's single-scale ones.

Legend: B batch, D the ViT's width, h and w cells of the stride-16 grid, C channels of an output level.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_LEVELS = 3


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map [B, D, h, w].

    Args:
        channels: D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map, of the same shape."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class PositionCode(nn.Module):
    """A learnt map that is added to the tokens, stretched to whatever grid the input has.

    Args:
        channels: D.
        grid_size: Cells along each side of the learnt map.
    """

    def __init__(self, channels: int, grid_size: int) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.empty(1, channels, grid_size, grid_size))
        nn.init.trunc_normal_(self.code, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, D, h, w] with the code added."""
        return x + F.interpolate(self.code, size=x.shape[-2:], mode="bilinear", align_corners=False)


class StridedConv(nn.Module):
    """A 3x3 convolution of stride 2 and its BatchNorm.

    Args:
        in_channels: Width of the map that comes in.
        out_channels: Width of the map, half as large, that goes out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, out, h, w] of x [B, in, 2h, 2w]."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class DetailBranch(nn.Module):
    """A few strided convolutions on the picture, for the edges that 16-pixel patches blur.

    The layout and its widths are DEIMv2's spatial prior (its `conv_inplane` is `channels`).

    Args:
        channels: Width of the stem, c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = (2 * channels, 4 * channels, 4 * channels)
        self.stem = StridedConv(3, channels)
        self.to_p8 = StridedConv(channels, 2 * channels)
        self.to_p16 = StridedConv(2 * channels, 4 * channels)
        self.to_p32 = StridedConv(4 * channels, 4 * channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps [B, 2c | 4c | 4c, ...] at strides 8, 16 and 32 of images [B, 3, 16h, 16w]."""
        quarter = F.max_pool2d(F.gelu(self.stem(images)), kernel_size=3, stride=2, padding=1)
        p8 = self.to_p8(quarter)
        p16 = self.to_p16(F.gelu(p8))
        return p8, p16, self.to_p32(F.gelu(p16))


class SpatialTuningAdapter(nn.Module):
    """Turns the maps of one or more ViT blocks into a pyramid (P8, P16, P32).

    Three taps feed one level each, the shallowest P8 and the deepest P32, as in DEIMv2. A single tap feeds
    all levels. Any other number is averaged first, as in ECDet.

    Each level is a 1x1 projection of its tap, plus, with the detail branch, a 1x1 projection of the branch's
    map, under one BatchNorm: the same as one 1x1 convolution over both maps concatenated. P8 is projected
    before it is enlarged, which gives what the other order gives for a quarter of the work.

    Args:
        embed_dim: D.
        num_taps: Maps that `forward` will be given.
        out_channels: C of each level.
        upsample: How P8 is enlarged twofold.
        downsample: How P32 is halved: "pool" averages 2x2 cells before the projection, "conv" is a 3x3
            convolution of stride 2 after it.
        layer_norm: Normalise each tap over its channels first.
        position_grid: Side of a learnt position code that is added to each tap; 0 for none.
        detail_channels: Width of the detail branch; 0 for none.

    Raises:
        ValueError: A negative or zero size where none makes sense, or an unknown way to resize.
    """

    def __init__(
        self,
        embed_dim: int,
        num_taps: int,
        *,
        out_channels: tuple[int, int, int],
        upsample: Literal["nearest", "bilinear"],
        downsample: Literal["conv", "pool"],
        layer_norm: bool,
        position_grid: int,
        detail_channels: int,
    ) -> None:
        super().__init__()
        if len(out_channels) != NUM_LEVELS or min(out_channels) < 1:
            raise ValueError(f"out_channels: {out_channels}; three widths above 0 are allowed.")
        if min(position_grid, detail_channels) < 0:
            raise ValueError(f"position_grid {position_grid}, detail_channels {detail_channels}: 0 or more.")
        if upsample not in ("nearest", "bilinear") or downsample not in ("conv", "pool"):
            raise ValueError(
                f"upsample {upsample!r} (nearest, bilinear), downsample {downsample!r} (conv, pool)."
            )
        self.upsample = upsample
        self.num_taps = num_taps
        self.norms = nn.ModuleList(
            ChannelNorm(embed_dim) if layer_norm else nn.Identity() for _ in range(num_taps)
        )
        self.position = PositionCode(embed_dim, position_grid) if position_grid else None
        self.projections = nn.ModuleList(nn.Conv2d(embed_dim, width, 1, bias=False) for width in out_channels)
        c32 = out_channels[2]
        self.halve = nn.Conv2d(c32, c32, 3, stride=2, padding=1, bias=False) if downsample == "conv" else None
        self.detail = DetailBranch(detail_channels) if detail_channels else None
        self.detail_projections = nn.ModuleList()
        if self.detail is not None:
            for width_in, width in zip(self.detail.out_channels, out_channels, strict=True):
                self.detail_projections.append(nn.Conv2d(width_in, width, 1, bias=False))
        self.fused_norms = nn.ModuleList(nn.BatchNorm2d(width) for width in out_channels)

    def forward(self, taps: tuple[Tensor, ...], images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pyramid.

        Args:
            taps: `num_taps` maps [B, D, h, w], shallow first; h and w are even.
            images: [B, 3, 16h, 16w] what the taps were made of; read by the detail branch alone.

        Returns:
            [B, C, 2h, 2w], [B, C, h, w] and [B, C, h / 2, w / 2].
        """
        maps = [norm(tap) for norm, tap in zip(self.norms, taps, strict=True)]
        if self.position is not None:
            maps = [self.position(x) for x in maps]
        if self.num_taps != NUM_LEVELS:
            maps = [torch.stack(maps).mean(0) if self.num_taps > 1 else maps[0]] * NUM_LEVELS
        p8, p16, p32 = self._resized(*maps)
        if self.detail is not None:
            detail8, detail16, detail32 = self.detail(images)
            project8, project16, project32 = self.detail_projections
            p8, p16, p32 = p8 + project8(detail8), p16 + project16(detail16), p32 + project32(detail32)
        norm8, norm16, norm32 = self.fused_norms
        return norm8(p8), norm16(p16), norm32(p32)

    def _resized(self, shallow: Tensor, middle: Tensor, deep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        project8, project16, project32 = self.projections
        align = False if self.upsample == "bilinear" else None
        p8 = F.interpolate(project8(shallow), scale_factor=2.0, mode=self.upsample, align_corners=align)
        if self.halve is not None:
            return p8, project16(middle), self.halve(project32(deep))
        return p8, project16(middle), project32(F.avg_pool2d(deep, kernel_size=2))
