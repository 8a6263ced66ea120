import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from src.deploy.export import DeployModel, GraphOptions
from src.deploy.metadata import ModelCard
from src.deploy.verify import export_verified

pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")


def test_the_file_arrives_with_its_report(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    path = tmp_path / "best.onnx"
    exported, agreement = export_verified(tiny, tiny, path, card)
    assert sorted(os.listdir(tmp_path)) == ["best.onnx", "export.json"]
    report = json.loads((tmp_path / "export.json").read_text())
    assert exported.path == path
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["num_nodes"] == exported.num_nodes
    assert report["input_size_hw"] == [64, 96]
    assert report["batch"] == "any"
    assert agreement is not None
    assert report["agreement"] == agreement._asdict()
    assert agreement.batch == 3


def test_a_file_that_disagrees_never_arrives(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = DeployModel(type(tiny.model)(), tiny.postprocessor).eval()
    with pytest.raises(ValueError, match="do not agree"):
        export_verified(tiny, other, tmp_path / "out" / "best.onnx", card)
    assert os.listdir(tmp_path) == []


def test_unchecked_says_so(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    _, agreement = export_verified(
        tiny, tiny, tmp_path / "best.onnx", card, GraphOptions(batch=1), check=False
    )
    report = json.loads((tmp_path / "export.json").read_text())
    assert agreement is None
    assert report["agreement"] is None
    assert report["batch"] == 1
