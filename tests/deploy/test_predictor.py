from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.data import CocoDetection, build_pipeline
from src.deploy.export import DeployModel, Exported
from src.deploy.metadata import ModelCard
from src.deploy.predictor import Predictor, evaluation_pipeline, find_pictures, prepare
from src.deploy.runtimes import OnnxRuntime, TorchRuntime
from src.structures import ClassNames, Detections


def save_picture(path: Path, size_hw: tuple[int, int], seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((size_hw[1], size_hw[0])).save(path)
    return path


@pytest.fixture
def pictures_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    save_picture(folder / "b.png", (40, 50), 1)
    save_picture(folder / "a.JPG", (120, 80), 2)
    save_picture(folder / "c.bmp", (64, 96), 3)
    save_picture(folder / "deeper" / "d.png", (8, 8))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def runtime(tiny: DeployModel, card: ModelCard) -> TorchRuntime:
    return TorchRuntime(tiny.model, tiny.postprocessor, card.classes, card.input_hw)


def test_finds_one_picture_or_a_folders_pictures_in_order(pictures_folder: Path) -> None:
    assert [path.name for path in find_pictures(pictures_folder)] == ["a.JPG", "b.png", "c.bmp"]
    assert find_pictures(pictures_folder / "notes.txt") == [pictures_folder / "notes.txt"]


def test_nothing_to_find_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent: no such picture or folder"):
        find_pictures(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no picture in this folder; looked for files ending in \.bmp"):
        find_pictures(tmp_path)


def test_prepares_bit_by_bit_as_evaluation_does(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "1.png", (61, 83))
    json_file = tmp_path / "a.json"
    json_file.write_text(
        '{"images": [{"id": 1, "file_name": "1.png", "height": 61, "width": 83}], '
        '"categories": [{"id": 4, "name": "x"}], "annotations": []}'
    )
    ops: list[tuple[str, dict[str, object]]] = [("Resize", {}), ("ConvertPILImage", {})]
    evaluated, _ = CocoDetection(tmp_path, json_file, build_pipeline(ops, (), (64, 96)))[0]
    ours = prepare([Image.open(path).convert("RGB")], evaluation_pipeline((64, 96)))
    assert ours.dtype == torch.float32
    assert torch.equal(ours[0], evaluated.float() / 255)


def test_batches_change_nothing_and_threshold_cuts(pictures_folder: Path, runtime: TorchRuntime) -> None:
    paths = find_pictures(pictures_folder)
    singly = list(Predictor(runtime, threshold=0.0).predict(paths))
    together = list(Predictor(runtime, threshold=0.0, batch_size=2).predict(paths))
    assert [one.path for one in together] == paths
    assert [one.size_hw for one in together] == [(120, 80), (40, 50), (64, 96)]
    for one, other in zip(singly, together, strict=True):
        assert len(one.scores) == 20
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-6)
    limit = float(singly[0].scores[7])
    cut = next(Predictor(runtime, threshold=limit).predict(paths))
    assert torch.equal(cut.scores, singly[0].scores[singly[0].scores >= limit])
    assert len(cut.boxes_xyxy_px) == len(cut.labels) == len(cut.scores) < 20


def test_onnx_and_pytorch_predict_the_same(
    pictures_folder: Path, runtime: TorchRuntime, exported: Exported
) -> None:
    paths = find_pictures(pictures_folder)
    ours = Predictor(runtime, threshold=0.0, batch_size=3).predict(paths)
    theirs = Predictor(OnnxRuntime(exported.path, num_threads=1), threshold=0.0, batch_size=3).predict(paths)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
        assert (one.boxes_xyxy_px - other.boxes_xyxy_px).abs().median() < 0.01


class BrokenRuntime:
    """Gives scores that are no numbers, as broken weights do."""

    def __init__(self, runtime: TorchRuntime) -> None:
        self.classes, self.input_hw, self._runtime = runtime.classes, runtime.input_hw, runtime
        self.keep_ratio = False

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        found = self._runtime.run(images, sizes_hw)
        return found._replace(scores=found.scores * float("nan"))


def test_scores_that_are_no_numbers_are_not_passed_over(pictures_folder: Path, runtime: TorchRuntime) -> None:
    with pytest.raises(ValueError, match=r"a\.JPG: .*its weights are broken"):
        list(Predictor(BrokenRuntime(runtime)).predict(find_pictures(pictures_folder)))


def test_an_unreadable_picture_is_named(pictures_folder: Path, runtime: TorchRuntime) -> None:
    whole = (pictures_folder / "a.JPG").read_bytes()
    (pictures_folder / "a.JPG").write_bytes(whole[: len(whole) // 2])
    for path in (pictures_folder / "a.JPG", pictures_folder / "notes.txt"):
        with pytest.raises(ValueError, match=path.name):
            list(Predictor(runtime).predict([path]))


class Finder:
    """Finds the one bright rectangle of each picture, as a perfect detector would."""

    classes = ClassNames(("bright",), (1,))
    input_hw = (96, 192)

    def __init__(self, *, keep_ratio: bool) -> None:
        self.keep_ratio = keep_ratio

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        boxes = []
        for image, (height, width) in zip(images, sizes_hw.tolist(), strict=True):
            y, x = torch.nonzero(image[0] > 0.5, as_tuple=True)
            box = torch.stack((x.min() / 192, y.min() / 96, (x.max() + 1) / 192, (y.max() + 1) / 96))
            boxes.append(box * torch.tensor([width, height, width, height]))
        labels = torch.zeros(len(images), 1, dtype=torch.int64)
        return Detections(labels, torch.stack(boxes)[:, None], torch.ones(len(images), 1))


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize("size_hw", [(100, 300), (300, 100), (77, 154)])
def test_boxes_are_in_pixels_of_the_picture_as_stored(
    tmp_path: Path, keep_ratio: bool, size_hw: tuple[int, int]
) -> None:
    pixels = np.zeros((*size_hw, 3), dtype=np.uint8)
    pixels[20:60, 10:70] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = next(Predictor(Finder(keep_ratio=keep_ratio)).predict([tmp_path / "a.png"]))
    tolerance = 2 * max(size_hw[0] / 96, size_hw[1] / 192, 1)
    torch.testing.assert_close(
        found.boxes_xyxy_px, torch.tensor([[10.0, 20.0, 70.0, 60.0]]), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(
    ("knobs", "message"), [({"threshold": 1.5}, "threshold 1.5"), ({"batch_size": 0}, "batch size 0")]
)
def test_settings_out_of_range(runtime: TorchRuntime, knobs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(runtime, **knobs)
