from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.data import CocoDetection, build_pipeline
from src.deploy.detector import Detector
from src.deploy.predictor import Predictor, prepare
from src.structures import ClassNames, Detections


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_prepares_bit_by_bit_as_evaluation_does(tmp_path: Path, mode: str, keep_ratio: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 251)
    path = tmp_path / "1.png"
    (picture if mode == "I;16" else picture.convert(mode)).save(path)
    json_file = tmp_path / "a.json"
    json_file.write_text(
        '{"images": [{"id": 1, "file_name": "1.png", "height": 61, "width": 83}], '
        '"categories": [{"id": 4, "name": "x"}], "annotations": []}'
    )
    ops: list[tuple[str, dict[str, object]]] = [("Resize", {}), ("ConvertPILImage", {})]
    pipeline = build_pipeline(ops, (), (64, 96), keep_ratio=keep_ratio)
    evaluated, _ = CocoDetection(tmp_path, json_file, pipeline)[0]
    runtime = Recorder(keep_ratio=keep_ratio)
    with Image.open(path) as opened:
        for source in (path, str(path), opened):
            Detector(runtime)(source)
            assert runtime.images.dtype == torch.float32
            assert torch.equal(runtime.images[0], evaluated.float() / 255)


class Recorder:
    """Keeps what it is given and finds nothing."""

    classes = ClassNames(("x",), (4,))
    input_hw = (64, 96)
    images: Tensor

    def __init__(self, *, keep_ratio: bool = False) -> None:
        self.keep_ratio = keep_ratio

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        self.images = images
        count = len(sizes_hw)
        return Detections(torch.zeros(count, 0).long(), torch.zeros(count, 0, 4), torch.zeros(count, 0))


@pytest.mark.parametrize("broken", ["scores", "boxes_xyxy_px"])
def test_scores_and_boxes_that_are_no_numbers_are_not_passed_over(broken: str) -> None:
    class Broken(Recorder):
        def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
            assert len(images) == (count := len(sizes_hw))
            found = Detections(torch.zeros(count, 1).long(), torch.ones(count, 1, 4), torch.ones(count, 1))
            return found._replace(**{broken: getattr(found, broken) * float("nan")})

    with pytest.raises(ValueError, match=r"a\.JPG: .*its weights are broken"):
        Predictor(Broken()).predict([Image.new("RGB", (5, 4))], ["a.JPG"], 0.0)


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
def test_boxes_are_in_pixels_of_the_picture_as_stored(keep_ratio: bool, size_hw: tuple[int, int]) -> None:
    pixels = np.zeros((*size_hw, 3), dtype=np.uint8)
    pixels[20:60, 10:70] = 255
    (found,) = Predictor(Finder(keep_ratio=keep_ratio)).predict([Image.fromarray(pixels)], ["a"], 0.4)
    tolerance = 2 * max(size_hw[0] / 96, size_hw[1] / 192, 1)
    torch.testing.assert_close(
        found.boxes_xyxy_px, torch.tensor([[10.0, 20.0, 70.0, 60.0]]), rtol=0, atol=tolerance
    )


def test_prepares_pictures_of_different_sizes_in_one_batch() -> None:
    both = [Image.new("RGB", (5, 9), "red"), Image.new("RGB", (1, 1), "blue")]
    images, sizes_hw = prepare(both, (64, 96))
    assert images.shape == (2, 3, 64, 96)
    assert sizes_hw.tolist() == [[9, 5], [1, 1]]
    assert images[0, 0].eq(1).all() and images[1, 2].eq(1).all()
