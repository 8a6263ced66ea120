"""A detector of the real one's parts: what treats backbone, encoder and decoder differently finds them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from src.deploy.export.onnx_graph import PLAIN, DeployModel, GraphOptions, export_onnx
from src.deploy.metadata import ModelCard
from src.structures import FinalOutput


class Backbone(nn.Module):
    """Cells of 8x8 pixels, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.LayerNorm(16)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.stem(images).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """What cells know of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mix = nn.Linear(16, 16)

    def forward(self, cells: Tensor) -> Tensor:
        return cells + self.mix(self.self_attn(cells, cells, cells)[0]).relu()  # type: ignore[no-any-return]


class PartedDetector(nn.Module):
    """Logits and a box for each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.encoder = Encoder()
        self.decoder = nn.ModuleDict({"head": nn.Linear(16, 3 + 4)})

    def forward(self, images: Tensor) -> FinalOutput:
        out = self.decoder["head"](self.encoder(self.backbone(images - 0.5)))
        return FinalOutput(3 * out[..., :3], (2 * out[..., 3:]).sigmoid())


def parted(postprocessor: nn.Module) -> DeployModel:
    torch.manual_seed(3)
    return DeployModel(PartedDetector(), postprocessor).eval()


def export_parted(
    postprocessor: nn.Module, path: Path, card: ModelCard, options: GraphOptions = PLAIN
) -> DeployModel:
    """Write the file, and give what it was made from."""
    deploy = parted(postprocessor)
    export_onnx(deploy, path, card, options)
    return deploy
