import json

import pytest

from src.deploy.metadata import ModelCard, from_properties, to_properties
from src.structures import ClassNames

CARD = ModelCard(ClassNames(("Katze", "Hündin"), (3, 90)), (320, 640), "my_config")


def test_there_and_back() -> None:
    for card in (CARD, CARD._replace(keep_ratio=True)):
        assert from_properties(to_properties(card), "x.onnx") == card


def test_says_what_the_caller_must_apply() -> None:
    properties = to_properties(CARD)
    assert all(isinstance(value, str) for value in properties.values())
    assert json.loads(properties["class_names"]) == ["Katze", "Hündin"]
    assert json.loads(properties["class_ids"]) == [3, 90]
    assert float(properties["scale"]) == 1 / 255
    assert json.loads(properties["mean"]) == [0, 0, 0]
    assert json.loads(properties["std"]) == [1, 1, 1]
    assert properties["channel_order"] == "RGB"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": "9"}, "format_version '9', expected '1'"),
        ({"class_names": "not json"}, "cannot be read"),
        ({"input_size_hw": "[320]"}, "cannot be read"),
        ({"class_ids": "[1, 2, 3]"}, "2 class names, 3 class ids"),
        ({"input_size_hw": "[0, 320]"}, "input size 0x320"),
    ],
)
def test_bad_properties_name_the_file_and_the_remedy(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_properties(to_properties(CARD) | change, "model.onnx")
    assert "model.onnx" in str(caught.value)
    assert "export_onnx.py" in str(caught.value)


def test_a_foreign_file_is_refused() -> None:
    with pytest.raises(ValueError, match="format_version None"):
        from_properties({}, "model.onnx")
