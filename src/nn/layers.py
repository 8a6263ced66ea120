"""Small building blocks that several parts of the network share."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "silu", "gelu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


def make_activation(name: Activation | None) -> nn.Module:
    """The activation called `name`; None for none.

    Raises:
        ValueError: There is no such activation.
    """
    if name is None:
        return nn.Identity()
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation '{name}' is not known, allowed are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; keeps H and W at stride 1.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        kernel_size: Side of the kernel, odd.
        stride: Step of the convolution.
        groups: Groups of the convolution.
        act: Activation after the norm, None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: Activation | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride]."""
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        in_dim: Width of the input.
        hidden_dim: Width between the layers.
        out_dim: Width of the output.
        num_layers: Number of linear layers.
        zero_last: Start with zero weights and bias in the last layer, so that the output starts at zero.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int, *, zero_last: bool = False
    ) -> None:
        super().__init__()
        widths = [in_dim] + [hidden_dim] * (num_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        if zero_last:
            for parameter in self.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_dim] -> [..., out_dim]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Multi-head self-attention with torch's names for its weights, in fewer steps than torch's own.

    Queries and keys come from one input (the tokens with their positions), values from another.

    Args:
        dim: Width of a token.
        num_heads: Attention heads.
        dropout: Chance that a weight of the sum is dropped.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(
                f"attention: {num_heads} heads cannot share a width of {dim}; use a divisor of it"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            query: [B, T, dim] what queries and keys are made of.
            value: [B, T, dim] what values are made of.
            blocked: [T, T] True where a token (row) must not see another (column); None where all see all.

        Returns:
            [B, T, dim].
        """
        dim = value.shape[-1]
        # [B, T, dim] -> [B, heads, T, dim / heads]
        both = F.linear(query, self.in_proj_weight[: 2 * dim], self.in_proj_bias[: 2 * dim])
        queries, keys = both.unflatten(-1, (2 * self.num_heads, -1)).transpose(1, 2).chunk(2, 1)  # type: ignore[no-untyped-call, unused-ignore]
        values = F.linear(value, self.in_proj_weight[2 * dim :], self.in_proj_bias[2 * dim :])
        values = values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call, unused-ignore]
        read = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if blocked is None else ~blocked,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics, scale and shift are fixed: all four are buffers.

    Unlike torchvision's, it keeps the dtype of its input under autocast.

    Args:
        norm: What is frozen, with its values.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [B, C, H, W]."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Files of norms that trained hold a count of batches, which nothing needs here."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace every BatchNorm2d below `module` by a FrozenBatchNorm2d, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child))
        else:
            freeze_batch_norms(child)


def flatten_map(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W, C], row by row."""
    return torch.flatten(x, 2).transpose(1, 2)
