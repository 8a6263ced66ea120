"""COCO's numbers of a detector, as `train.py --test-only` gives them."""

import json
from pathlib import Path

import pytest
import torch
from lab_cases import TINY, Lab, annotate

from src import assembly, runs
from src.data import DemoSettings, Origin, write_demo_dataset
from src.deploy import Detector
from src.deploy.export.onnx_graph import DeployModel, Exported
from src.deploy.metadata import ModelCard
from src.deploy.runtimes import OnnxRuntime, TorchRuntime
from src.deploy.scores import coco_numbers, origin_of
from src.evaluation import CocoMetrics
from src.solver import recorder


@pytest.fixture(scope="module")
def origin(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Origin:
    return annotate(lab.detector, tmp_path_factory.mktemp("data") / "set")


def as_test_only(lab: Lab, origin: Origin, output: Path) -> CocoMetrics:
    """What `train.py --test-only` finds."""
    val = "val_dataloader.dataset"
    changes = [f"{val}.img_folder={origin.img_folder}", f"{val}.ann_file={origin.ann_file}"]
    changes += [f"output_dir={output}", "num_classes=3", "val_dataloader.num_workers=0"]
    experiment = assembly.load(lab.config, [*TINY, *changes])
    return runs.test(experiment, torch.device("cpu"), checkpoint=str(lab.folder / "best.pth"))


def test_a_model_as_trained_gets_what_test_only_says(
    lab: Lab, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "write_report", lambda *_, **__: None)
    as_trained = Detector.load(lab.folder, device="cpu", as_trained=True).runtime
    numbers = coco_numbers(as_trained, origin, batch_size=32)
    assert 0.1 < numbers.AP < 0.9
    assert numbers == as_test_only(lab, origin, tmp_path / "output")
    assert coco_numbers(lab.detector.runtime, origin).AP == pytest.approx(numbers.AP, abs=1e-3)


def test_every_runtime_gets_the_same_numbers(
    tiny: DeployModel, exported: Exported, card: ModelCard, tmp_path: Path
) -> None:
    in_torch = TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw)
    origin = annotate(Detector(in_torch), tmp_path / "set")
    expected = coco_numbers(in_torch, origin)
    assert expected.AP > 0.1
    assert [row.id for row in expected.classes] == [1, 7, 90]
    found = coco_numbers(OnnxRuntime(exported.path, num_threads=1), origin, batch_size=2)
    assert found.numbers() == pytest.approx(expected.numbers(), abs=1e-3)


def test_a_dataset_of_other_classes_is_refused(lab: Lab, origin: Origin, tmp_path: Path) -> None:
    content = json.loads(origin.ann_file.read_text())
    content["categories"][0]["name"] = "fish"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"other\.json: categories .*fish.* are not those"):
        coco_numbers(lab.detector.runtime, origin._replace(ann_file=path))


def test_data_is_named_as_pictures_and_objects_or_as_a_dataset(tmp_path: Path) -> None:
    assert origin_of([Path("a"), Path("b.json")]) == Origin(Path("a"), Path("b.json"))
    write_demo_dataset(tmp_path / "demo", DemoSettings(num_train=1, num_val=2, size=64))
    found = origin_of([tmp_path / "demo"])
    assert found.img_folder == tmp_path / "demo" / "val"
    assert found.ann_file.name == "instances_val.json"
    with pytest.raises(ValueError, match="3 paths came as data"):
        origin_of([tmp_path] * 3)
