import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from extraction_cases import (
    BATCH_SIZE,
    NUM_PICTURES,
    SIZE_HW,
    begin,
    contents,
    kill_at_random,
    num_shards,
    small_teacher,
    write_pictures,
)
from PIL import Image
from safetensors import safe_open

from src.data import to_device_images
from src.deploy.feature_extraction import extract_to_folder, list_pictures
from src.teachers import FeatureStore


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "images"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(pictures: Path) -> dict[str, bytes]:
    """The files of an extraction that nobody disturbed."""
    folder = pictures.parent / "undisturbed"
    process = begin(pictures, folder)
    process.join()
    assert process.exitcode == 0
    return contents(folder)


def ids_of_all_shards(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("features-*")):
        with safe_open(path, framework="pt") as shard:
            found += json.loads(shard.metadata()["features"])["file_names"]
    return found


def test_features_are_the_teachers(pictures: Path, undisturbed: dict[str, bytes]) -> None:  # noqa: ARG001
    store = FeatureStore.open(pictures.parent / "undisturbed")
    names = sorted(path.name for path in pictures.iterdir())
    assert sorted(ids_of_all_shards(store.folder)) == names and len(names) == NUM_PICTURES
    listed, teacher = list_pictures(pictures, None, SIZE_HW), small_teacher()
    asked = [names[i] for i in (0, 37, NUM_PICTURES - 1)]
    images = torch.stack([listed.load(listed.image_ids.index(name)) for name in asked])
    expected, read = teacher(to_device_images(images)), store.read(asked)
    assert read["patch_tokens"].shape == (3, 3 * 4, 24)
    for name, value in read.items():
        torch.testing.assert_close(value.float(), expected[name], rtol=1e-3, atol=2e-3)  # float16's precision


def test_killed_at_random_moments(pictures: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    draw, folder = random.Random(3), tmp_path / "features"
    for _ in range(5):
        kill_at_random([begin(pictures, folder, hang_after=2)], folder, draw)
    last = begin(pictures, folder)
    last.join()
    assert last.exitcode == 0 and len(ids_of_all_shards(folder)) == NUM_PICTURES
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("moment", ["fsync", "replace", "save_file", "chmod"])
def test_killed_in_the_middle_of_writing(
    pictures: Path, undisturbed: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    folder = tmp_path / "features"
    killed = begin(pictures, folder, die_at=moment)
    killed.join()
    assert killed.exitcode == -9 and num_shards(folder) < len(undisturbed) - 1
    assert set(FeatureStore.open(folder).shard_of) == set(ids_of_all_shards(folder))  # sound as it is
    again = begin(pictures, folder)
    again.join()
    assert again.exitcode == 0 and contents(folder) == undisturbed


@pytest.mark.dist
def test_two_processes_killed_at_random_moments(
    pictures: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    draw, folder = random.Random(5), tmp_path / "features"
    for life in range(4):
        named = {"store": tmp_path / f"store{life}", "hang_after": 2 if life < 3 else None}
        ranks = [begin(pictures, folder, rank=rank, **named) for rank in draw.sample((0, 1), 2)]
        if life < 3:
            kill_at_random(ranks, folder, draw)
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert contents(folder) == undisturbed


def test_new_pictures_are_added(tmp_path: Path) -> None:
    few = tmp_path / "images"
    write_pictures(few, 3)
    teacher, folder = small_teacher(), tmp_path / "features"
    listed = list_pictures(few, None, SIZE_HW)
    done = extract_to_folder(teacher, listed, folder, batch_size=BATCH_SIZE)
    assert (done.num_pictures, done.num_before) == (3, 0)
    before = contents(folder)
    again = extract_to_folder(teacher, listed, folder, batch_size=BATCH_SIZE)
    assert (again.num_pictures, again.num_before) == (3, 3) and contents(folder) == before
    write_pictures(few, 5)
    more = extract_to_folder(teacher, list_pictures(few, None, SIZE_HW), folder, batch_size=BATCH_SIZE)
    assert (more.num_pictures, more.num_before) == (5, 3)
    assert sorted(ids_of_all_shards(folder)) == [f"{n:03}.png" for n in range(5)]
    assert more.num_bytes == sum(len(data) for name, data in contents(folder).items() if name != "index.json")


def write_coco(folder: Path, ids: Sequence[int], names: Sequence[str], file: str = "some.json") -> Path:
    """A COCO file of pictures in `folder`/images, with an empty box."""
    listed = []
    for image_id, name in zip(ids, names, strict=True):
        with Image.open(folder / "images" / name) as image:
            listed.append({"id": image_id, "file_name": name, "width": image.width, "height": image.height})
    box = {"id": 1, "image_id": ids[-1], "category_id": 1, "bbox": [2, 2, 0, 0], "area": 0, "iscrowd": 0}
    document = {"images": listed, "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
    (folder / file).write_text(json.dumps(document))
    return folder / file


def test_pictures_of_a_coco_file_are_called_by_their_ids(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", 3)
    ann_file = write_coco(tmp_path, (900, 7), ("001.png", "002.png"))
    from_coco = list_pictures(tmp_path / "images", ann_file, SIZE_HW)
    from_folder = list_pictures(tmp_path / "images", None, SIZE_HW)
    assert from_coco.image_ids == ("900", "7")
    assert torch.equal(from_coco.load(1), from_folder.load(2))
    extract_to_folder(small_teacher(), from_coco, tmp_path / "features")
    store = FeatureStore.open(tmp_path / "features")
    assert store.read([7, 900])["cls_token"].shape == (2, 24)
    assert store.file_names == {"900": "001.png", "7": "002.png"}


def test_another_dataset_with_the_same_ids_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", 5)
    folder = tmp_path / "features"
    train = write_coco(tmp_path, (1, 2), ("000.png", "001.png"), "train.json")
    val = write_coco(tmp_path, (3, 2), ("002.png", "003.png"), "val.json")
    extract_to_folder(small_teacher(), list_pictures(tmp_path / "images", train, SIZE_HW), folder)
    before = contents(folder)
    with pytest.raises(ValueError, match=r"holds 001\.png as picture 2, which is 003\.png now.*of their own"):
        extract_to_folder(small_teacher(), list_pictures(tmp_path / "images", val, SIZE_HW), folder)
    assert contents(folder) == before


def test_a_damaged_picture_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", 5)
    broken = tmp_path / "images" / "003.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    listed, folder = list_pictures(tmp_path / "images", None, SIZE_HW), tmp_path / "features"
    with pytest.raises(ValueError, match=r"003\.png cannot be decoded"):
        extract_to_folder(small_teacher(), listed, folder, batch_size=1, shard_pictures=1)
    assert set(FeatureStore.open(folder).shard_of) == {"000.png", "001.png", "002.png"}
    broken.write_bytes(whole)
    done = extract_to_folder(small_teacher(), listed, folder, batch_size=1, shard_pictures=1)
    assert (done.num_before, len(ids_of_all_shards(folder))) == (3, 5)


def test_what_killed_writers_left_is_swept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path / "images", 1)
    (tmp_path / "features" / ".unfinished-1").mkdir(parents=True)
    (tmp_path / "features" / ".unfinished-1" / "features-1.safetensors").write_bytes(b"half")
    listed = list_pictures(tmp_path / "images", None, SIZE_HW)
    with caplog.at_level(logging.INFO):
        extract_to_folder(small_teacher(), listed, tmp_path / "features")
    assert not list((tmp_path / "features").glob(".*"))
    assert "1 pictures to do, 0 are done" in caplog.text


@pytest.mark.parametrize("setting", [{"batch_size": 0}, {"num_threads": 0}])
def test_settings_out_of_range(tmp_path: Path, setting: dict[str, int]) -> None:
    write_pictures(tmp_path / "images", 1)
    listed = list_pictures(tmp_path / "images", None, SIZE_HW)
    with pytest.raises(ValueError, match="1 or more"):
        extract_to_folder(small_teacher(), listed, tmp_path / "features", **setting)


def test_nothing_to_extract_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist"):
        list_pictures(tmp_path / "nowhere", None, SIZE_HW)
    with pytest.raises(ValueError, match="no picture in this folder"):
        list_pictures(tmp_path, None, SIZE_HW)
    with pytest.raises(ValueError, match="size 0 64"):
        list_pictures(tmp_path, None, (0, 64))
