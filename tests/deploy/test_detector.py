"""One detector as a checkpoint, an ONNX file and OpenVINO's IR: loaded by one call, with one behaviour."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lab_cases import TINY, Lab
from PIL import Image

from src import assembly
from src.deploy import DeployModel, Exported, ModelCard, OpenVinoRuntime, TorchRuntime
from src.deploy.agreement import Tolerance, compare
from src.deploy.checkpoint_files import write_upstream
from src.deploy.detector import Detector
from src.deploy.metadata import to_properties
from src.deploy.results import Result
from src.deploy.runtimes import openvino_core
from src.solver.checkpoint import save_checkpoint
from src.structures import Detections

KINDS = ("torch", "model.onnx", "model.xml")


class Family(NamedTuple):
    """A detector that pads pictures to its input's shape, in every form.

    Attributes:
        folder: Holds the exported files.
        detectors: By `KINDS`.
    """

    folder: Path
    detectors: dict[str, Detector]


@pytest.fixture(scope="module")
def family(
    tiny: DeployModel, exported: Exported, card: ModelCard, tmp_path_factory: pytest.TempPathFactory
) -> Family:
    onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    openvino = pytest.importorskip("openvino", reason="pip install -r requirements-openvino.txt")
    folder = tmp_path_factory.mktemp("family")
    proto = onnx.load(exported.path)
    onnx.helper.set_model_props(proto, to_properties(card._replace(keep_ratio=True)))
    onnx.save(proto, folder / "model.onnx")
    graph = openvino.Core().read_model(str(folder / "model.onnx"))
    openvino.save_model(graph, str(folder / "model.xml"), compress_to_fp16=False)
    in_torch = TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw, keep_ratio=True)
    loaded = {name: Detector.load(folder / name, num_threads=1) for name in KINDS[1:]}
    return Family(folder, {"torch": Detector(in_torch), **loaded})


def picture(size_hw: tuple[int, int], seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size_hw[::-1])


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [picture(size_hw, seed) for seed, size_hw in enumerate([(60, 90), (200, 120), (72, 104), (1, 1)])]


def together(results: list[Result] | Iterator[Result]) -> Detections:
    """Results of as many detections each, as a batch."""
    rows = [(one.labels, one.boxes, one.scores) for one in results]
    return Detections(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_runtime_gives_what_pytorch_gives(
    family: Family, card: ModelCard, pictures: list[Image.Image], kind: str
) -> None:
    detector = family.detectors[kind]
    assert detector.classes == card.classes
    expected = together(family.detectors["torch"](pictures, threshold=0.0))
    for batch_size in (1, 3):
        found = together(detector(pictures, threshold=0.0, batch_size=batch_size))
        agreement = compare(expected, found, Tolerance(score=1e-3, box_px=0.5, ap=0))
        assert agreement.num_compared >= 18 * len(pictures)


@pytest.mark.parametrize("kind", KINDS)
def test_results_name_classes_and_lie_in_the_pictures_pixels(
    family: Family, card: ModelCard, pictures: list[Image.Image], kind: str
) -> None:
    everything = family.detectors[kind](pictures[1], 0.0)[0].scores
    limit = float(everything[7:9].mean())
    (found,) = family.detectors[kind](pictures[1], limit)
    assert torch.equal(found.scores, everything[:8])
    assert found.names == ("cat", "dog", "owl")
    assert found.size_hw == (200, 120)
    records = found.to_coco(17)
    assert [one["category_id"] for one in records] == [card.classes.ids[i] for i in found.labels.tolist()]
    assert float(found.boxes.max()) > 104  # not the network's pixels


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_detector(family: Family, pictures: list[Image.Image], kind: str) -> None:
    detector = family.detectors[kind]
    alone = [detector(one, 0.0)[0] for one in pictures]
    barrier = threading.Barrier(len(pictures))

    def work(index: int) -> list[Result]:
        barrier.wait()
        return [detector(pictures[index], 0.0)[0] for _ in range(20)]

    with ThreadPoolExecutor(len(pictures)) as pool:
        for expected, results in zip(alone, pool.map(work, range(len(pictures))), strict=True):
            for one in results:
                torch.testing.assert_close(one.scores, expected.scores, rtol=0, atol=1e-5)
                torch.testing.assert_close(one.boxes, expected.boxes, rtol=0, atol=1e-2)


def test_threads_share_a_real_model(lab: Lab, pictures: list[Image.Image]) -> None:
    alone = [lab.detector(one, 0.0)[0] for one in pictures]
    with ThreadPoolExecutor(len(pictures)) as pool:
        together = list(pool.map(lambda one: lab.detector(one, 0.0)[0], pictures * 3))
    for one, expected in zip(together, alone * 3, strict=True):
        torch.testing.assert_close(one.scores, expected.scores, rtol=0, atol=1e-5)


def test_a_checkpoint_carries_its_config_and_classes(lab: Lab, card: ModelCard) -> None:
    assert lab.detector.classes == card.classes
    (found,) = lab.detector(picture((200, 120), 1), 0.0)
    assert found.boxes.shape == (50, 4)
    assert float(found.boxes.max()) > 104


def test_a_checkpoint_takes_any_input_size(lab: Lab) -> None:
    larger = Detector.load(lab.folder, device="cpu", input_size=(70, 130))
    assert larger.runtime.input_hw == (70, 130) != lab.detector.runtime.input_hw
    (found,) = larger(picture((200, 120), 1), 0.0)
    assert found.boxes.shape == (50, 4)


def test_the_deploy_form_gives_what_was_trained(lab: Lab, pictures: list[Image.Image]) -> None:
    as_trained = Detector.load(lab.folder, device="cpu", as_trained=True)
    expected = together(as_trained(pictures, threshold=0.0))
    found = together(lab.detector(pictures, threshold=0.0))
    assert not torch.equal(found.boxes_xyxy_px, expected.boxes_xyxy_px), "the same model twice"
    agreement = compare(expected, found, Tolerance(score=1e-3, box_px=0.5, ap=0))
    assert agreement.num_compared >= 45 * len(pictures)


def test_a_folder_stands_for_its_best_checkpoint(lab: Lab, pictures: list[Image.Image]) -> None:
    found = Detector.load(lab.folder, device="cpu")(pictures[0], 0.0)
    assert torch.equal(found[0].scores, lab.detector(pictures[0], 0.0)[0].scores)


def test_a_folder_of_one_file_stands_for_it_and_others_are_named(
    family: Family, card: ModelCard, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="there is none; name the file"):
        Detector.load(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "a.onnx").write_bytes((family.folder / "model.onnx").read_bytes())
    assert Detector.load(tmp_path, num_threads=1).classes == card.classes
    (tmp_path / "b.xml").write_text("")
    with pytest.raises(ValueError, match=r"there is a\.onnx, b\.xml; name the file"):
        Detector.load(tmp_path)


def test_a_checkpoint_without_a_config_needs_one(lab: Lab, pictures: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match=r"plain\.pth: holds no config"):
        Detector.load(lab.folder / "plain.pth")
    detector = Detector.load(
        lab.folder / "plain.pth", config=lab.config, overrides=[*TINY, "num_classes=3"], device="cpu"
    )
    for one, other in zip(detector(pictures, 0.0), lab.detector(pictures, 0.0), strict=True):
        assert torch.equal(one.scores, other.scores)


def test_a_published_checkpoint_knows_cocos_classes(repo_root: Path, tmp_path: Path) -> None:
    config = repo_root / "configs/dfine/dfine_hgnetv2_n_coco.yml"
    small = ["eval_spatial_size=[64, 64]"]
    model, *_ = assembly.load_detector(config, None, small)
    save_checkpoint(tmp_path / "ours.pth", {"model": model.state_dict()})
    write_upstream(tmp_path / "ours.pth", tmp_path / "dfine_n_coco.pth", model, (64, 64))
    detector = Detector.load(tmp_path / "dfine_n_coco.pth", config=config, overrides=small, device="cpu")
    assert (detector.classes.names[0], detector.classes.ids[-1]) == ("person", 90)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("absent.pth", {}, "absent.pth"),
        ("absent.onnx", {}, "absent.onnx: no such file"),
        ("absent.xml", {}, "absent.xml: no such file"),
        ("model.bin", {}, "model.bin: is no .pth"),
        ("model.onnx", {"device": "cuda"}, "runs on the CPU"),
        ("model.xml", {"config": "x.yml"}, "holds its whole model"),
        ("model.onnx", {"bfloat16": True}, r"model.onnx: bfloat16 is for OpenVINO's \.xml files"),
        ("model.onnx", {"as_trained": True}, "leave config, overrides, device, compiling and as_trained out"),
    ],
)
def test_what_cannot_be_loaded_is_told(
    family: Family, name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Detector.load(family.folder / name, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_threads": 2}, "OMP_NUM_THREADS"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"bfloat16": True}, r"best.pth: bfloat16 is for OpenVINO's \.xml files"),
    ],
)
def test_settings_that_mean_nothing_for_a_checkpoint(
    lab: Lab, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Detector.load(lab.folder / "best.pth", **settings)


def test_a_detector_joins_no_process_group(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    Detector.load(lab.folder / "best.pth", device="cpu")
    assert not torch.distributed.is_initialized()


def test_openvino_also_takes_the_onnx_file(family: Family, pictures: list[Image.Image]) -> None:
    found = Detector(OpenVinoRuntime(family.folder / "model.onnx", num_threads=1))(pictures, 0.0)
    expected = together(family.detectors["model.xml"](pictures, 0.0))
    assert compare(expected, together(found)).num_compared >= 72


def test_bfloat16_reaches_openvino(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compile_model = openvino_core().compile_model

    def record(model: object, device: str, settings: dict[str, object]) -> Any:
        asked.append(settings["INFERENCE_PRECISION_HINT"])
        return compile_model(model, device, settings)

    monkeypatch.setattr(openvino_core(), "compile_model", record)
    for bfloat16 in (False, True):
        Detector.load(family.folder / "model.xml", num_threads=1, bfloat16=bfloat16)
    assert asked == ["f32", "bf16"]


@pytest.mark.parametrize("kind", KINDS)
def test_slices_agree_too(family: Family, kind: str) -> None:
    large = picture((170, 230), 5)
    expected = family.detectors["torch"](large, 0.5, slice_px=100, overlap=0.25, batch_size=4)[0]
    found = family.detectors[kind](large, 0.5, slice_px=100, overlap=0.25, batch_size=4)[0]
    assert len(expected.scores) > 3
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.5)
