"""Pictures of any size, brought to a multiple of what the network needs."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(images: Tensor, multiple: int) -> tuple[Tensor, tuple[float, float]]:
    """Repeat the last row and column until both sides are multiples of `multiple`.

    Returns:
        The pictures [B, C, H', W'], and the part of (H', W') that the real ones cover, (1.0, 1.0) at most.
    """
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom or right:
        images = F.pad(images, (0, right, 0, bottom), mode="replicate")
    return images, (height / (height + bottom), width / (width + right))
