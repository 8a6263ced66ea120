import inspect
import typing

import numpy as np
import pytest
import torch
from PIL import Image

from src.data import TRANSFORMS, build_pipeline
from src.structures import Target


def _sample():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    return Image.fromarray(pixels), Target(torch.tensor([[10.0, 10, 40, 30]]), torch.tensor([0]), 1, (50, 80))


def test_names_are_upstreams_and_knobs_are_keyword_only_and_typed():
    assert set(TRANSFORMS) == {
        "RandomPhotometricDistort", "RandomZoomOut", "RandomIoUCrop", "SanitizeBoundingBoxes",
        "RandomHorizontalFlip", "RandomVerticalFlip", "RandomAffine", "Resize",
        "ConvertPILImage", "Normalize", "ConvertBoxes", "PadToSize",
    }  # fmt: skip
    for kind in TRANSFORMS.values():
        hints = typing.get_type_hints(kind.__init__)
        parameters = list(inspect.signature(kind).parameters.values())
        assert all(p.name in hints for p in parameters)
        wired = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        assert wired == (["keep_ratio"] if kind is TRANSFORMS["Resize"] else [])


def test_strong_transforms_run_only_when_told(recipe):
    strong = ("RandomPhotometricDistort", "RandomZoomOut", "RandomIoUCrop", "RandomHorizontalFlip")
    pipeline = build_pipeline(recipe, strong, (64, 96))
    plain = build_pipeline([("Resize", {})], (), (64, 96))
    expected, _ = plain(*_sample(), strong=True)
    torch.manual_seed(0)
    without, target = pipeline(*_sample(), strong=False)
    assert torch.equal(without, expected)
    assert target.boxes_xyxy_px.tolist() == [pytest.approx([12, 12.8, 48, 38.4])]
    torch.manual_seed(0)
    assert not torch.equal(pipeline(*_sample(), strong=True)[0], expected)


def test_the_input_is_not_changed(recipe):
    image, target = _sample()
    before = image.copy(), target.boxes_xyxy_px.clone()
    build_pipeline(recipe, (), (64, 96))(image, target, strong=True)
    assert image == before[0] and torch.equal(target.boxes_xyxy_px, before[1])


def test_what_the_pipeline_states(recipe):
    pipeline = build_pipeline(recipe, (), (64, 96))
    assert pipeline.normalize is not None and pipeline.normalize.mean == (0.485, 0.456, 0.406)
    assert pipeline.moves_frame == ("RandomZoomOut", "RandomIoUCrop", "RandomHorizontalFlip")
    assert build_pipeline([("Resize", {})], (), (64, 96)).normalize is None


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'RandomZoomIn' is not known; did you mean RandomZoomOut"):
        build_pipeline([("RandomZoomIn", {})], (), (64, 64))
    with pytest.raises(ValueError, match="policy.ops names Mosaic, but the transforms are Resize"):
        build_pipeline([("Resize", {})], ("Mosaic",), (64, 64))


def test_an_empty_pipeline_only_makes_a_tensor():
    image, target = build_pipeline([], (), (64, 64))(*_sample(), strong=True)
    assert image.shape == (3, 50, 80) and image.dtype == torch.uint8
    assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(np.asarray(_sample()[0]).copy()))
    assert type(target.boxes_xyxy_px) is torch.Tensor and type(image) is torch.Tensor
