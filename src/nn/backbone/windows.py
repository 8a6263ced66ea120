"""Windowed attention for a ViT: blocks between two taps see equal parts of the picture, each on its own.

What attention costs grows with the square of the tokens that attend. A ViT with windows and few global blocks
is ViTDet's (Li et al. 2022); that the global ones are those that the detector reads is RF-DETR's.

Legend: B batch, K windows along each side, P class and register tokens, D width of a token, h and w patches
along each side of the picture, d width of one head.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """How a picture's tokens [B, P + h * w, D] become sequences [B * K * K, P + h / K * w / K, D] and back.

    The windows of a picture lie side by side, row by row, and so do the patches of each.

    Attributes:
        num: K.
        grid_hw: (h, w), multiples of K.
        num_prefix: P; these tokens come first in either form.
    """

    num: int
    grid_hw: tuple[int, int]
    num_prefix: int

    def split(self, tokens: Tensor) -> Tensor:
        """Each window's patches as a sequence of its own, with copies of the prefix tokens before them."""
        batch, _, dim = tokens.shape
        prefix = tokens[:, None, : self.num_prefix].expand(-1, self.num**2, -1, -1)
        patches = self._split_patches(tokens[:, self.num_prefix :])
        return torch.cat((prefix, patches.reshape(batch, self.num**2, -1, dim)), 2).flatten(0, 1)

    def join(self, sequences: Tensor) -> Tensor:
        """The picture's tokens again, with the mean of the copies of each prefix token.

        A global block is trained with one of each: K * K copies would draw K * K times the attention.
        """
        rows, columns = self._window_hw()
        batch, dim = sequences.shape[0] // self.num**2, sequences.shape[-1]
        prefix = sequences[:, : self.num_prefix].reshape(batch, self.num**2, -1, dim).mean(1)
        patches = sequences[:, self.num_prefix :].reshape(batch, self.num, self.num, rows, columns, dim)
        return torch.cat((prefix, patches.transpose(2, 3).flatten(1, 4)), 1)

    def split_positions(self, positions: Tensor, batch: int) -> Tensor:
        """The rotary table of each sequence, in which a patch keeps its place in the whole picture.

        Args:
            positions: [h * w, 2 * d] sines and cosines.
            batch: B.

        Returns:
            [B * K * K, 1, h / K * w / K, 2 * d], the same for all heads.
        """
        return self._split_patches(positions[None]).repeat(batch, 1, 1)[:, None]

    def _split_patches(self, patches: Tensor) -> Tensor:
        rows, columns = self._window_hw()
        batch, _, dim = patches.shape
        grid = patches.reshape(batch, self.num, rows, self.num, columns, dim)
        return grid.transpose(2, 3).reshape(-1, rows * columns, dim)

    def _window_hw(self) -> tuple[int, int]:
        return self.grid_hw[0] // self.num, self.grid_hw[1] // self.num
