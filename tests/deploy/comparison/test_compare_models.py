from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.deploy.comparison import models
from src.deploy.comparison.model_info import Flops, ModelInfo
from src.deploy.comparison.models import Contestant, Data, compare_models, labels
from src.deploy.export.onnx_graph import DeployModel
from src.deploy.metadata import ModelCard


@pytest.fixture
def contestant(tiny: DeployModel, card: ModelCard) -> Contestant:
    info = ModelInfo({"other": 1}, {"other": 1}, Flops(2, 1), card.input_hw)
    return Contestant("tiny", Path("tiny.yml"), None, tiny, card.classes, info, None)


def test_a_model_is_called_like_its_file_and_by_its_place_where_that_is_not_enough():
    configs = [Path("a/s.yml"), Path("a/l.yml"), Path("b/s.yml")]
    assert labels(configs) == ["s (1)", "l", "s (3)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": [Path("a.pth")]}, "1 checkpoints came for 2 configs"),
        ({"checkpoints": [Path("a.pth")] * 3}, "3 checkpoints came for 2 configs"),
        ({"data": Data(Path("pictures"), Path("a.json"))}, "name checkpoints with -r"),
        ({"repeats": 0}, "--repeats 0"),
        ({"threads": 0}, "--threads 0"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(options: dict[str, Any], message: str):
    arguments = {"checkpoints": [], **options}
    with pytest.raises(ValueError, match=message):
        compare_models(
            [Path("absent.yml")] * 2, arguments.pop("checkpoints"), torch.device("cpu"), **arguments
        )


def test_pytorch_runs_the_batch_at_the_models_size(
    contestant: Contestant, tiny: DeployModel, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[torch.Size, torch.Size]] = []
    whole = tiny.forward

    def watched(images: torch.Tensor, sizes_wh: torch.Tensor) -> Any:
        assert torch.is_inference_mode_enabled()
        seen.append((images.shape, sizes_wh.shape))
        return whole(images, sizes_wh)

    monkeypatch.setattr(tiny, "forward", watched)
    runner = models._torch_runner(contestant, torch.device("cpu"))
    for count in (1, 8):
        runner(count)()
    assert seen == [((1, 3, 64, 96), (1, 2)), ((8, 3, 64, 96), (8, 2))]


def test_onnx_runtime_runs_the_exported_model_at_any_batch(contestant: Contestant, tmp_path: Path):
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    runner = models._onnx_runner(contestant, tmp_path / "x.onnx")
    for count in (1, 8):
        found = runner(count)()
        images = models.pictures(count, (64, 96))
        with torch.inference_mode():
            _, _, scores = contestant.deploy(images, torch.tensor([[640, 480]]).repeat(count, 1))
        assert torch.allclose(found.scores, scores, atol=1e-4)


def test_models_take_turns_at_batch_1_and_then_at_batch_8(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    def runner(name: str) -> Callable[[int], Callable[[], None]]:
        return lambda count: lambda: order.append(f"{name}{count}")

    monkeypatch.setattr(models, "SETTLE_S", 0.0)
    speeds = models._speeds("PyTorch, CPU", [runner("A"), runner("B")], 2, torch.device("cpu"))
    rounds = models.WARM_UP + 2
    assert order == ["A1", "B1"] * rounds + ["A8", "B8"] * rounds
    assert [(one.runtime, one.batch, one.single.num_calls) for one in speeds] == [("PyTorch, CPU", 8, 2)] * 2
