"""A detector of a few thousand parameters with the real one's interface, exported once for all tests here."""

from pathlib import Path

import pytest
import torch
from lab_cases import Lab, make_lab
from parted import export_parted
from PIL import Image
from torch import Tensor, nn

from src import assembly
from src.deploy.export.onnx_graph import DeployModel, Exported, GraphOptions, export_onnx
from src.deploy.metadata import ModelCard
from src.deploy.samples import pictures
from src.nn.deploy import to_deploy
from src.structures import ClassNames, Detections, FinalOutput

CARD = ModelCard(ClassNames(("cat", "dog", "owl"), (1, 7, 90)), (64, 96), "tiny")


class TinyDetector(nn.Module):
    """Cells of 8x8 pixels, mixed by LayerNorm and attention, each giving logits and a box."""

    least_side = 24

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.LayerNorm(16)
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 3 + 4)

    def forward(self, images: Tensor) -> FinalOutput:
        cells = self.norm(self.stem(images - 0.5).flatten(2).transpose(1, 2))
        out = self.head(cells + self.mix(cells, cells, cells)[0])
        return FinalOutput(3 * out[..., :3], (2 * out[..., 3:]).sigmoid())


class TinyPostProcessor(nn.Module):
    """The best 20 of all queries and classes."""

    def forward(self, output: FinalOutput, sizes_hw: Tensor) -> Detections:
        num_classes = output.logits.shape[-1]
        scores, index = output.logits.sigmoid().flatten(1).topk(20)
        row = (index // num_classes)[..., None].expand(-1, -1, 4)
        centre, half = output.boxes_cxcywh.gather(1, row).split(2, -1)
        boxes = torch.cat((centre - half / 2, centre + half / 2), -1)
        scale = torch.stack((sizes_hw[:, 1], sizes_hw[:, 0]), -1).repeat(1, 2)
        return Detections(index % num_classes, boxes * scale[:, None], scores)


@pytest.fixture(scope="session")
def tiny() -> DeployModel:
    torch.manual_seed(3)
    return DeployModel(TinyDetector(), TinyPostProcessor()).eval()


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return CARD


@pytest.fixture(scope="session")
def exported(tiny: DeployModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    return export_onnx(tiny, tmp_path_factory.mktemp("onnx") / "tiny.onnx", CARD)


@pytest.fixture(scope="session")
def parted_file(tiny: DeployModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported detector of a backbone, an encoder and a decoder."""
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    path = tmp_path_factory.mktemp("parted") / "parted.onnx"
    export_parted(tiny.postprocessor, path, CARD)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five made-up pictures of several sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, pixels in enumerate(pictures(5, (48, 60), seed=7)):
        levels = (255 * pixels[:, : 48 - index]).byte().permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def lab(repo_root: Path, card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(tmp_path_factory.mktemp("lab"), repo_root, card.classes)


@pytest.fixture(scope="session")
def lab_onnx(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.onnx` of the lab's `best.pth`, in a folder of its own."""
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    folder = tmp_path_factory.mktemp("lab_onnx")
    config, path = folder / "best.yml", folder / "model.onnx"
    config.write_text(torch.load(lab.folder / "best.pth", weights_only=True)["config"])
    model, postprocessor, classes, experiment = assembly.load_detector(config, lab.folder / "best.pth")
    card = ModelCard(classes, experiment.eval_spatial_size, "lab", experiment.keep_ratio)
    export_onnx(DeployModel(to_deploy(model), postprocessor).eval(), path, card, GraphOptions(batch=1))
    return path
