"""Whatever stands in the JSON: a finding or a ValueError, never another error, and no box of nonsense."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

from doctor_zoo import HEIGHT, WIDTH, Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.data import read_annotations
from src.data.doctor import diagnose

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 1e308, -0.0]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["0", "1", "train1.png", "../a", "a\\b", "/", ".", "..", "images", "\ud800", "\0", "a" * 400]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of the document stands."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(p for key, value in inner for p in places(value, (*path, key)))]


def mutate(document: Any, path: tuple[Any, ...], action: str, value: Any) -> Any:
    if not path:
        return value
    node = document
    for key in path[:-1]:
        node = node[key]
    if action == "delete":
        del node[path[-1]]
    elif action == "repeat" and isinstance(node, list):
        node.append(copy.deepcopy(node[path[-1]]))
    else:
        node[path[-1]] = value
    return document


def check(folder: Path, data: Dataset, text: str) -> None:
    """Read it in every way there is."""
    path = data.json("train")
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    report = diagnose(folder, decode=False)
    json.loads(report.as_json())
    assert report.table().isprintable() or "\n" in report.table()
    try:
        packed = read_annotations(path, scored=True)
    except ValueError:
        assert report.errors
        return
    boxes = packed.boxes_xyxy_px
    assert bool((boxes[:, 2:] > boxes[:, :2]).all()) and bool((boxes >= 0).all())
    assert len(packed.ends) == len(packed.image_ids) + 1 and int(packed.ends[-1]) == len(boxes)
    assert not len(boxes) or 0 <= int(packed.labels.min()) <= int(packed.labels.max()) < len(
        packed.classes.ids
    )
    for k, (h, w) in enumerate(packed.sizes_hw.tolist()):
        own, _ = packed.objects(k)
        assert not len(own) or (float(own[:, [0, 2]].max()) <= w and float(own[:, [1, 3]].max()) <= h)
    truth = packed.stated
    assert bool((truth.boxes_xywh_px[:, 2:] >= 0).all()) and bool((truth.areas >= 0).all())


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_change_of_the_document_is_read_or_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        dataset = Dataset(Path(temporary, "data"))
        folder = dataset.write()
        document: Any = dataset.train
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(places(document)[1:] or [()]))
            action = data.draw(st.sampled_from(["replace", "replace", "delete", "repeat"]))
            document = mutate(document, path, action, data.draw(VALUES))
            if not isinstance(document, dict):
                break
        check(folder, dataset, json.dumps(document))


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 1500), st.integers(0, 1500), st.text(alphabet='{}[]",:0123eE-+.nullNaI\\ \n', max_size=6)
)
def test_any_damage_of_the_text_is_read_or_refused(start: int, length: int, inserted: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        dataset = Dataset(Path(temporary, "data"))
        folder = dataset.write()
        text = json.dumps(dataset.train)
        check(folder, dataset, text[:start] + inserted + text[start + length // 50 :])


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(-2 * WIDTH, 2 * WIDTH), st.integers(-WIDTH, WIDTH)),
            st.floats(-2 * HEIGHT, 2 * HEIGHT),
            st.floats(-2 * WIDTH, 2 * WIDTH),
            st.floats(-2 * HEIGHT, 2 * HEIGHT),
        ),
        max_size=6,
    )
)
def test_any_box_is_the_part_of_it_that_is_in_the_picture(boxes: list[tuple[float, ...]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "a.json")
        image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
        annotations = [
            {"id": k + 1, "image_id": 1, "category_id": 1 + k, "bbox": list(box)}
            for k, box in enumerate(boxes)
        ]
        categories = [{"id": k, "name": str(k)} for k in range(1, 9)]
        path.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": categories}))
        try:
            packed = read_annotations(path, drop_empty_boxes=True)
        except ValueError as error:
            refused = ("boxes-as-corners", "boxes-normalised", "boxes-tiny")
            assert any(code in str(error) for code in refused)
            return
        found = dict(zip(packed.labels.tolist(), packed.boxes_xyxy_px.tolist(), strict=True))
        for label, (x, y, w, h) in enumerate(boxes):
            left, right = (min(max(v, 0), WIDTH) for v in (min(x, x + w), max(x, x + w)))
            top, bottom = (min(max(v, 0), HEIGHT) for v in (min(y, y + h), max(y, y + h)))
            if right - left > 1e-3 and bottom - top > 1e-3:
                assert all(
                    abs(a - b) < 1e-4 for a, b in zip(found[label], (left, top, right, bottom), strict=True)
                )
            elif right == left or bottom == top:
                assert label not in found
