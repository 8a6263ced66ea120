"""D-FINE: backbone, encoder, decoder."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from ..ops.padding import pad_to_multiple
from ..structures import FinalOutput, Level, Targets, TrainOutput

SIZE_MULTIPLE = 32  # the coarsest stride, so that every level is exactly half of the one before


class DFINE(nn.Module):
    """The detector. It takes pictures of any size: it normalises and pads them itself.

    Args:
        backbone: Pictures to maps; states `image_mean` and `image_std`, None for none.
        encoder: Maps to maps.
        decoder: Maps (and targets in training) to outputs.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, backbone: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.encoder = encoder
        self.decoder = decoder
        self.normalises = backbone.image_mean is not None
        if self.normalises:
            for name in ("image_mean", "image_std"):
                values = torch.tensor(cast(tuple[float, ...], getattr(backbone, name)))
                self.register_buffer(name, values[:, None, None], persistent=False)

    @property
    def least_side(self) -> int:
        """From this height and width on there are as many cells as queries; smaller pictures get fewer."""
        levels = cast(tuple[Level, ...], self.encoder.levels)
        cells = sum((SIZE_MULTIPLE // level.stride) ** 2 for level in levels)
        return SIZE_MULTIPLE * math.ceil(math.sqrt(cast(int, self.decoder.num_queries) / cells))

    def forward(self, images: Tensor, targets: Targets | None = None) -> TrainOutput | FinalOutput:
        """Detect.

        Args:
            images: [B, 3, H, W] floating RGB in [0, 1].
            targets: The objects, for denoising in training.

        Returns:
            In training a `TrainOutput`, in evaluation a `FinalOutput`; boxes in units of the given pictures.

        Raises:
            ValueError: The pictures are not floating.
        """
        if not images.is_floating_point():
            raise ValueError(f"DFINE takes pictures as floats in [0, 1], but these are {images.dtype}")
        padded, extent_hw = pad_to_multiple(self._normalised(images), SIZE_MULTIPLE)
        maps = self.encoder(self.backbone(padded))
        return self.decoder(maps, extent_hw, targets)  # type: ignore[no-any-return]

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.image_mean) / self.image_std if self.normalises else images
