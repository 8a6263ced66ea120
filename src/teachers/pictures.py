"""Pictures in any of the forms that people hold them in, as one batch.

Legend: B pictures, H and W their sides.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Picture = Tensor | Image.Image | np.ndarray[Any, Any]


def to_batch(images: Picture | Sequence[Picture]) -> Tensor:
    """Pictures as [B, 3, H, W] float32 RGB in [0, 1].

    Args:
        images: A PIL picture; an array, uint8 [H, W, 3] or [B, H, W, 3]; a tensor [3, H, W] or [B, 3, H, W],
            uint8 or floating in [0, 1]; or a list of such, all of one size.

    Raises:
        ValueError: Something else, values outside [0, 1], or pictures of several sizes.
    """
    if not isinstance(images, Sequence):
        return _one(images)
    batches = [_one(image) for image in images]
    sizes = sorted({(batch.shape[-2], batch.shape[-1]) for batch in batches})
    if len(sizes) != 1:
        found = ", ".join(f"{h}x{w}" for h, w in sizes) or "an empty list"
        raise ValueError(
            f"pictures of one size make a batch, but these are {found} (height x width); resize them, or "
            "give those of each size in a call of their own."
        )
    return torch.cat(batches)


def _one(image: object) -> Tensor:
    if isinstance(image, Image.Image):
        return _of_bytes(torch.from_numpy(np.array(_rgb(image))))
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim in (3, 4) and image.shape[-1] == 3:
            return _of_bytes(torch.from_numpy(image.copy()))
        raise ValueError(f"an array is uint8 [H, W, 3] or [B, H, W, 3], not {image.dtype} {image.shape}.")
    if not isinstance(image, Tensor):
        raise ValueError(f"a picture is a tensor, an array or a PIL picture, not a {type(image).__name__}.")
    if image.ndim not in (3, 4) or image.shape[-3] != 3:
        raise ValueError(f"a tensor of pictures is [3, H, W] or [B, 3, H, W], not {tuple(image.shape)}.")
    batch = image if image.ndim == 4 else image[None]
    if image.dtype == torch.uint8:
        return batch.to(torch.float32).div_(255)
    if not image.is_floating_point() or not ((image >= 0) & (image <= 1)).all():
        raise ValueError(
            f"a tensor of pictures is uint8, or floating in [0, 1]; this one is {image.dtype} from "
            f"{image.min().item():.4g} to {image.max().item():.4g}. Leave the normalisation to the teacher."
        )
    return batch.to(torch.float32)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"a PIL picture has 8 bits a channel; mode {image.mode} has no agreed white.")
    return image.convert("RGB")


def _of_bytes(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [0, 1] from bytes [H, W, 3] or [B, H, W, 3]."""
    batch = pixels if pixels.ndim == 4 else pixels[None]
    return batch.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
