"""One exported file for pictures of any height and width."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.deploy.agreement import compare
from src.deploy.detector import Detector
from src.deploy.export.onnx_graph import DeployModel, Exported, GraphOptions, export_onnx
from src.deploy.export.verify import export_verified
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime, OpenVinoRuntime
from src.deploy.samples import made_up
from src.nn.backbone import DINOv3Backbone
from src.nn.decoder import DFINETransformer
from src.nn.deploy import to_deploy
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.nn.postprocessor import DFINEPostProcessor
from src.structures import Detections, FinalOutput

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")

NUM_QUERIES, LEAST = 50, 64
SMALL = {"hidden_dim": 16, "nhead": 4, "dim_feedforward": 16}
DYNAMIC = GraphOptions(dynamic_size=True)


@pytest.fixture(scope="module")
def model() -> DeployModel:
    torch.manual_seed(5)
    backbone = DINOv3Backbone(
        pretrained=False,
        embed_dim=48,
        depth=1,
        num_heads=3,
        out_channels=(16, 16, 16),
        detail_channels=4,
        position_grid=4,
    )
    encoder = HybridEncoder(backbone.levels, **SMALL, depth_mult=0.34, expansion=0.5)
    decoder = DFINETransformer(encoder.levels, 3, **SMALL, num_layers=1, num_queries=NUM_QUERIES)
    detector = DFINE(backbone, encoder, decoder)
    for module in detector.modules():  # as if trained: logits and boxes that differ from cell to cell
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    return DeployModel(detector, DFINEPostProcessor(3, num_top_queries=60)).eval()


@pytest.fixture(scope="module")
def dynamic(model: DeployModel, card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    deploy = DeployModel(to_deploy(model.model), model.postprocessor).eval()
    return export_onnx(deploy, tmp_path_factory.mktemp("dynamic") / "any.onnx", card, DYNAMIC)


# At 400 the outermost cells lie exactly on the margin's edge, beyond which they propose nothing.
SIZES = [(64, 96), (64, 64), (97, 65), (224, 75), (90, 400)]


@pytest.mark.parametrize("size_hw", SIZES)
def test_detects_what_pytorch_detects(
    dynamic: Exported, model: DeployModel, size_hw: tuple[int, int]
) -> None:
    samples = made_up(size_hw, 3)
    with torch.no_grad():
        expected = Detections(*model(samples.images, samples.sizes_hw.flip(-1)))
    assert expected.scores.std() > 1e-3
    found = OnnxRuntime(dynamic.path, input_hw=size_hw).run(samples.images, samples.sizes_hw)
    assert compare(expected, found).num_compared >= 0.9 * expected.scores.numel()


def test_openvino_takes_it_too(dynamic: Exported, model: DeployModel) -> None:
    pytest.importorskip("openvino", reason="pip install -r requirements-openvino.txt")
    for size_hw in SIZES[2:4]:
        samples = made_up(size_hw, 2)
        with torch.no_grad():
            expected = Detections(*model(samples.images, samples.sizes_hw.flip(-1)))
        runtime = OpenVinoRuntime(dynamic.path, num_threads=1, input_hw=size_hw)
        compare(expected, runtime.run(samples.images, samples.sizes_hw))


def test_only_the_inputs_are_unknown_and_the_graph_stays_frugal(dynamic: Exported) -> None:
    graph = onnx.load(dynamic.path).graph
    dims = {
        one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    }
    assert dims["images"] == ["N", 3, "H", "W"]
    assert dims["boxes"] == ["N", 60, 4]
    assert dynamic.least_side == LEAST
    assert dynamic.num_nodes <= 750, dynamic.operators  # of torch 2.10; 716 of 2.15
    assert not {"GridSample", "BatchNormalization", "Erfc"} & set(dynamic.operators)


def test_a_detector_is_opened_for_a_size(dynamic: Exported, exported: Exported) -> None:
    assert Detector.load(dynamic.path).runtime.input_hw == (64, 96)
    assert Detector.load(dynamic.path, input_size=(70, 200)).runtime.input_hw == (70, 200)
    assert Detector.load(exported.path, input_size=(64, 96)).runtime.input_hw == (64, 96)
    with pytest.raises(ValueError, match=r"any\.onnx: takes pictures from 64x64 on, but pictures of 63x200"):
        Detector.load(dynamic.path, input_size=(63, 200))
    with pytest.raises(ValueError, match=r"takes pictures of 64x96 alone, but .* 70x200 .* --dynamic-size"):
        Detector.load(exported.path, input_size=(70, 200))


def test_an_input_size_below_the_least_is_refused(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="from 24x24 on, .* the input size is 16x96"):
        export_onnx(tiny, tmp_path / "x.onnx", card._replace(input_hw=(16, 96)), DYNAMIC)


def test_it_is_verified_at_other_sizes(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    export_verified(tiny, tiny, tmp_path / "good.onnx", card, DYNAMIC)
    report = json.loads((tmp_path / "export.json").read_text())["good.onnx"]
    assert (report["input_size_hw"], report["least_side"]) == ([64, 96], 24)
    assert list(report["other_sizes_hw"]) == ["24x25", "55x69"]
    assert all(found["max_score_diff"] < 1e-3 for found in report["other_sizes_hw"].values())

    class Elsewhere(nn.Module):
        def forward(self, images: Tensor) -> FinalOutput:
            output: FinalOutput = tiny.model(images)
            return output if images.shape[-2:] == (64, 96) else output._replace(logits=output.logits / 2)

    other = DeployModel(Elsewhere(), tiny.postprocessor).eval()
    with pytest.raises(ValueError, match="ONNX Runtime at 24x25 and PyTorch do not agree"):
        export_verified(tiny, other, tmp_path / "bad.onnx", card, DYNAMIC)
    assert not (tmp_path / "bad.onnx").exists()
