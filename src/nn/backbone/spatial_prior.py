"""The spatial prior: a small convolutional pyramid of the picture, for detail that a ViT's patches blur."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNorm

STEPS = (1, 2, 4, 4)  # widths at strides 4, 8, 16 and 32, in units of the stem's


class SpatialPrior(nn.Module):
    """ViT-Adapter's spatial prior module (Chen et al. 2022, section 3.2).

    Args:
        dim: Width of all maps that go out.
        stem_channels: Width of the first convolutions.
        strides: Strides of the maps that go out: 8, 16 and 32, or 4 as well.
    """

    def __init__(self, dim: int, *, stem_channels: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        widths = [stem_channels * step for step in STEPS]
        self.stem = nn.Sequential(
            ConvNorm(3, widths[0], 3, stride=2, act="relu"),
            ConvNorm(widths[0], widths[0], 3, act="relu"),
            ConvNorm(widths[0], widths[0], 3, act="relu"),
        )
        self.halvings = nn.ModuleList(
            ConvNorm(a, b, 3, stride=2, act="relu") for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.projections = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths[-len(strides) :])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps [B, dim, ceil(H / stride), ceil(W / stride)], fine first, of images [B, 3, H, W]."""
        x = F.max_pool2d(self.stem(images), kernel_size=3, stride=2, padding=1)
        maps = [x]
        for halve in self.halvings:
            x = halve(x)
            maps.append(x)
        wanted = maps[-len(self.projections) :]
        return tuple(project(x) for project, x in zip(self.projections, wanted, strict=True))
