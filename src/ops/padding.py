"""Pictures of any size, brought to a multiple or to the aspect ratio that the network needs."""

import torch
import torch.nn.functional as F
from torch import Tensor


def is_symbol(side: int) -> bool:
    """Whether a size is unknown: it stands for all sizes that an exported graph will take."""
    return isinstance(side, torch.SymInt)


def pad_to_multiple(images: Tensor, multiple: int) -> tuple[Tensor, tuple[float, float]]:
    """Repeat the last row and column until both sides are multiples of `multiple`.

    Returns:
        The pictures [B, C, H', W'], and the part of (H', W') that the real ones cover, (1.0, 1.0) at most.
    """
    height, width = images.shape[-2:]
    # No negative number is divided: the ONNX that torch writes of it rounds the other way.
    bottom, right = ((side + multiple - 1) // multiple * multiple - side for side in (height, width))
    if is_symbol(height) or bottom or right:
        images = F.pad(images, (0, right, 0, bottom), mode="replicate")
    return images, (height / (height + bottom), width / (width + right))


def framed(size_hw: tuple[int, int], like_hw: tuple[int, int]) -> tuple[int, int]:
    """The smallest frame (height, width) around a picture of `size_hw` that is shaped as `like_hw`.

    The picture lies in its upper left corner. Its shape is exact to half a pixel.
    """
    (height, width), (like_height, like_width) = size_hw, like_hw
    if height * like_width < width * like_height:
        return max(height, round(width * like_height / like_width)), width
    return height, max(width, round(height * like_width / like_height))
