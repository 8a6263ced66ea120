import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from lab_cases import annotate

from src.data import Origin
from src.deploy.agreement import Tolerance
from src.deploy.detector import Detector
from src.deploy.export.onnx_graph import DeployModel, GraphOptions
from src.deploy.export.verify import export_verified, gather_evidence
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import TorchRuntime
from src.deploy.samples import first_of, made_up

pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")


def test_the_file_arrives_with_its_report(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    path = tmp_path / "best.onnx"
    exported, evidence = export_verified(tiny, tiny, path, card)
    assert sorted(os.listdir(tmp_path)) == ["best.onnx", "export.json"]
    report = json.loads((tmp_path / "export.json").read_text())["best.onnx"]
    assert exported.path == path
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["num_nodes"] == exported.num_nodes
    assert report["input_size_hw"] == [64, 96]
    assert report["batch"] == "any"
    assert evidence is not None
    assert report["verified"] == evidence.to_dict()
    assert (evidence.agreement.batch, evidence.pictures, evidence.scores) == (3, "made-up pictures", None)


def test_a_file_that_disagrees_never_arrives(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = DeployModel(type(tiny.model)(), tiny.postprocessor).eval()
    with pytest.raises(ValueError, match="do not agree"):
        export_verified(tiny, other, tmp_path / "out" / "best.onnx", card)
    assert os.listdir(tmp_path) == []


def test_unchecked_says_so(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    _, evidence = export_verified(
        tiny, tiny, tmp_path / "best.onnx", card, GraphOptions(batch=1), check=False
    )
    report = json.loads((tmp_path / "export.json").read_text())["best.onnx"]
    assert evidence is None
    assert report["verified"] is None
    assert report["batch"] == 1


def test_aps_stand_side_by_side(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    in_torch = TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw)
    origin = annotate(Detector(in_torch), tmp_path / "set")
    samples = first_of(origin, card.input_hw)
    _, evidence = export_verified(tiny, tiny, tmp_path / "best.onnx", card, samples=samples, data=origin)
    assert evidence is not None
    report = json.loads((tmp_path / "export.json").read_text())["best.onnx"]["verified"]
    assert report["pictures"] == f"the first pictures of {origin.ann_file}"
    scores = report["scores"]
    assert (scores["num_pictures"], scores["ann_file"]) == (5, str(origin.ann_file))
    assert scores["PyTorch"]["AP50"] > 0.1 and len(scores["PyTorch"]) == 12
    assert scores["ONNX Runtime"] == pytest.approx(scores["PyTorch"], abs=1e-3)
    *_, head, rule, first, second = evidence.text().splitlines()
    assert head.split() == ["5", "pictures", *scores["PyTorch"]] and set(rule) == {"-"}
    assert first.split()[:2] == ["PyTorch", f"{100 * scores['PyTorch']['AP']:.2f}"]
    assert second.startswith("ONNX Runtime  ")


def test_another_ap_is_refused(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    torch.manual_seed(4)
    one, other = (
        TorchRuntime(model.eval(), tiny.postprocessor, card.classes, card.input_hw)
        for model in (tiny.model, type(tiny.model)())
    )
    origin = annotate(Detector(one), tmp_path / "set")
    blind = Tolerance(score=1, box_px=1, ap=0.01, floor=2)
    with pytest.raises(ValueError, match=r"half\.onnx and PyTorch do not agree: AP 0\.\d{4} and 0\.\d{4}"):
        gather_evidence("half.onnx", other, one, made_up(card.input_hw), origin, blind)


def test_data_without_a_check_is_refused(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no check was asked for"):
        export_verified(tiny, tiny, tmp_path / "x.onnx", card, data=Origin(tmp_path, tmp_path), check=False)


def test_the_file_must_have_its_own_suffix(tiny: DeployModel, card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export\.json: the exported file must end in \.onnx"):
        export_verified(tiny, tiny, tmp_path / "export.json", card)
    assert os.listdir(tmp_path) == []
