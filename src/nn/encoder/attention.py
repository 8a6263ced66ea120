"""Self-attention over one map of the pyramid (RT-DETR's AIFI).

Legend: B batch, S = H * W cells, D width.
"""

import torch
from torch import Tensor, nn

from ..layers import Activation, SelfAttention, flatten_map, make_activation


def position_code(height: int, width: int, dim: int, temperature: float, like: Tensor) -> Tensor:
    """Sine-cosine code of the cells' rows and columns.

    Args:
        height: Rows.
        width: Columns.
        dim: D, a multiple of 4.
        temperature: Ratio of the longest to the shortest wave length.
        like: Whose device and dtype the code gets.

    Returns:
        [height * width, dim]: sines then cosines of the row, sines then cosines of the column, so that for
        square maps it is upstream's (which calls the first half the column).
    """
    device = like.device
    frequencies = temperature ** -(torch.arange(dim // 4, dtype=torch.float32, device=device) / (dim // 4))
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * frequencies
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * frequencies
    row_code = torch.cat((rows.sin(), rows.cos()), -1)[:, None].expand(-1, width, -1)
    column_code = torch.cat((columns.sin(), columns.cos()), -1)[None].expand(height, -1, -1)
    return torch.cat((row_code, column_code), -1).reshape(height * width, dim).to(like.dtype)


class EncoderLayer(nn.Module):
    """A transformer encoder layer with norms after the residuals.

    Args:
        hidden_dim: D.
        nhead: Attention heads.
        dim_feedforward: Width between the two linear layers.
        dropout: Chance that a value is dropped.
        act: Activation between the two linear layers.
    """

    def __init__(
        self, hidden_dim: int, nhead: int, dim_feedforward: int, dropout: float, act: Activation
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(hidden_dim, nhead, dropout)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.linear1 = nn.Linear(hidden_dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, hidden_dim)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.act = make_activation(act)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """`x` [B, S, D] with `position` [S, D] added to queries and keys."""
        x = self.norm1(x + self.dropout(self.self_attn(x + position, x)))
        grown = self.linear2(self.dropout(self.act(self.linear1(x))))
        return self.norm2(x + self.dropout(grown))  # type: ignore[no-any-return]


class MapEncoder(nn.Module):
    """Encoder layers on the cells of a map.

    Args:
        layers: The layers.
        temperature: Of the position code.
    """

    def __init__(self, layers: list[EncoderLayer], temperature: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, H, W] -> the same shape, every cell informed of all others."""
        _, dim, height, width = x.shape
        position = position_code(height, width, dim, self.temperature, x)
        tokens = flatten_map(x)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.transpose(1, 2).reshape(-1, dim, height, width)
