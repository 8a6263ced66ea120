"""From single pictures to a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.boxes import xyxy_to_cxcywh
from ..structures import Batch, Target, Targets


def collate(pairs: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Stack pictures and pack their objects.

    Args:
        pairs: uint8 pictures [3, H, W], all of one size, with objects in their pixels.

    Returns:
        The batch; its images lie channels innermost in memory, as the pipeline gives them.

    Raises:
        ValueError: Pictures of different sizes.
    """
    sizes = sorted({(image.shape[1], image.shape[2]) for image, _ in pairs})
    if len(sizes) != 1:
        raise ValueError(
            f"pictures of different sizes cannot be one batch: {', '.join(f'{h}x{w}' for h, w in sizes[:5])} "
            "(height x width); end the transforms with a Resize (or Resize and PadToSize), or use a batch "
            "size of 1"
        )
    h, w = sizes[0]
    targets = [target for _, target in pairs]
    boxes_xyxy = torch.cat([target.boxes_xyxy_px for target in targets]) / torch.tensor([w, h, w, h])
    return Batch(
        torch.stack([image.permute(1, 2, 0) for image, _ in pairs]).permute(0, 3, 1, 2),
        Targets(
            boxes_cxcywh=xyxy_to_cxcywh(boxes_xyxy),
            labels=torch.cat([target.labels for target in targets]),
            counts=tuple(len(target.labels) for target in targets),
            image_ids=tuple(target.image_id for target in targets),
            sizes_hw=tuple(target.size_hw for target in targets),
        ),
    )
