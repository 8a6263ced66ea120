"""Convolutional blocks that fuse two levels of the pyramid."""

import torch
from torch import Tensor, nn

from ..layers import Activation, ConvNorm, make_activation


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, summed (RepVGG); one 3x3 convolution once it is fused.

    Args:
        channels: Width of input and output.
        act: Activation after the sum.
    """

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = ConvNorm(channels, channels, 1)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return self.act(self.conv1(x) + self.conv2(x))  # type: ignore[no-any-return]


class CSPLayer(nn.Module):
    """A chain of RepBlocks beside a plain projection, summed.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        num_blocks: Length of the chain.
        act: Activation.
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels, 1, act=act)
        self.conv2 = ConvNorm(in_channels, out_channels, 1, act=act)
        self.bottlenecks = nn.Sequential(*(RepBlock(out_channels, act) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H, W]."""
        return self.bottlenecks(self.conv1(x)) + self.conv2(x)  # type: ignore[no-any-return]


class LightCSPLayer(nn.Module):
    """CSPLayer whose two projections are one convolution (DEIMv2); the same values, in fewer calls.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        num_blocks: Length of the chain.
        act: Activation.
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, 2 * out_channels, 1, act=act)
        self.bottlenecks = nn.Sequential(*(RepBlock(out_channels, act) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H, W]."""
        chain, plain = self.conv1(x).chunk(2, 1)
        return self.bottlenecks(chain) + plain  # type: ignore[no-any-return]


class FuseBlock(nn.Module):
    """GELAN block: half of a projection goes through two branches, and everything is projected again.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        split_channels: Width of the first projection, even.
        branch_channels: Width of the branches.
        num_blocks: RepBlocks in each branch.
        light: DEIMv2's variant: no 3x3 convolution at a branch's end, merged projections.
        act: Activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        split_channels: int,
        branch_channels: int,
        num_blocks: int,
        *,
        light: bool,
        act: Activation,
    ) -> None:
        super().__init__()

        def branch(width: int) -> nn.Module:
            if light:
                return LightCSPLayer(width, branch_channels, num_blocks, act)
            return nn.Sequential(
                CSPLayer(width, branch_channels, num_blocks, act),
                ConvNorm(branch_channels, branch_channels, 3, act=act),
            )

        self.cv1 = ConvNorm(in_channels, split_channels, 1, act=act)
        self.cv2 = branch(split_channels // 2)
        self.cv3 = branch(branch_channels)
        self.cv4 = ConvNorm(split_channels + 2 * branch_channels, out_channels, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H, W]."""
        first, second = self.cv1(x).chunk(2, 1)
        third = self.cv2(second)
        return self.cv4(torch.cat((first, second, third, self.cv3(third)), 1))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Half the size: a projection, then a strided depthwise convolution.

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(channels, channels, 1)
        self.cv2 = ConvNorm(channels, channels, 3, stride=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H / 2, W / 2]."""
        return self.cv2(self.cv1(x))  # type: ignore[no-any-return]
