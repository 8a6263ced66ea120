import json
import logging
import os

import pytest
import torch

from src.data import annotation_cache, read_annotations
from src.data.annotation_cache import cache_path, load_annotations
from src.data.annotations import follow_classes
from src.structures import ClassNames


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """A cache folder of the test's own, for files of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)


def _same(one, other):
    return all(
        torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def reads(monkeypatch):
    """How often the JSON itself was read."""
    calls = []

    def read(*args, **options):
        calls.append(args)
        return read_annotations(*args, **options)

    monkeypatch.setattr(annotation_cache, "read_annotations", read)
    return calls


def test_a_cache_gives_what_the_file_gives_without_reading_it(disk, reads):
    disk.document["images"][1]["file_name"] = "größe.png"
    path = disk.write()
    expected = read_annotations(path)
    first, second = load_annotations(path), load_annotations(path)
    assert len(reads) == 1 and cache_path(path).is_file()
    assert _same(first, expected) and _same(second, expected)
    assert second.file_names() == [second.file_name(k) for k in range(3)] == ["0.png", "größe.png", "2.png"]
    assert os.listdir(cache_path(path).parent) == [cache_path(path).name]  # nothing else is left there


def test_what_is_to_be_scored_is_kept_as_it_is_stated(disk, reads):
    crowd = {**disk.document["annotations"][0], "bbox": [0.1, 0.2, 30.3, 40.7], "iscrowd": 1, "area": 17.25}
    disk.document["annotations"].append({**crowd, "id": 99})
    del disk.document["annotations"][1]["area"]
    path = disk.write()
    assert load_annotations(path).stated is None and len(reads) == 1
    for _ in range(2):  # the cache of what is trained on alone does not suffice
        truth = load_annotations(path, scored=True).stated
        assert len(reads) == 2
        assert truth.image_ids.tolist() == [100, 101, 102]
        assert truth.image_index.tolist() == [0, 1, 2, 0] and truth.labels.tolist() == [2, 2, 2, 2]
        assert truth.boxes_xywh_px.tolist() == [
            [4, 6, 10, 20],
            [5, 6, 10, 20],
            [6, 6, 10, 20],
            [0.1, 0.2, 30.3, 40.7],
        ]
        assert truth.areas.tolist() == [200, 200, 200, 17.25]
        assert truth.crowd.tolist() == [False, False, False, True]
    assert load_annotations(path).labels.tolist() == [2, 2, 2] and len(reads) == 2


def test_a_file_without_objects_can_be_cached(disk, reads):
    disk.document["annotations"] = []
    path = disk.write()
    assert _same(load_annotations(path), load_annotations(path)) and len(reads) == 1
    assert load_annotations(path, scored=True).stated.image_index.tolist() == []


def test_a_changed_file_makes_the_cache_anew_even_with_the_same_size_and_time(disk, reads, caplog):
    path = disk.write()
    load_annotations(path)
    stamp = path.stat()
    path.write_text(path.read_text().replace('"bbox": [4,', '"bbox": [3,', 1))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with caplog.at_level(logging.INFO):
        changed = load_annotations(path)
    assert changed.objects(0)[0].tolist() == [[3, 6, 13, 26]] and len(reads) == 2
    assert "has changed" in caplog.text
    load_annotations(path)
    assert len(reads) == 2


@pytest.mark.parametrize("fault", ["empty", "cut", "one bit", "another version", "text"])
def test_a_damaged_cache_is_made_anew_and_said(disk, reads, caplog, fault):
    path = disk.write()
    expected = load_annotations(path)
    cache = cache_path(path)
    good = cache.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    contents = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "one bit": bytes(flipped),
        "another version": b"DFANN\0\0\7" + good[8:],
        "text": b"not a cache",
    }
    os.unlink(cache)  # `expected` is still mapped from the old file
    cache.write_bytes(contents[fault])
    assert _same(load_annotations(path), expected)
    assert len(reads) == 2 and str(cache) in caplog.text and "made anew" in caplog.text
    assert cache.read_bytes() == good


def test_where_no_cache_can_be_written_the_file_is_read_and_it_is_said(disk, reads, caplog, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    path = disk.write()
    assert _same(load_annotations(path), read_annotations(path))
    assert len(reads) == 1 and "not cached" in caplog.text


def test_writing_to_what_is_mapped_does_not_reach_the_cache(disk):
    path = disk.write()
    load_annotations(path)
    before = cache_path(path).read_bytes()
    load_annotations(path).boxes_xyxy_px.zero_()
    assert cache_path(path).read_bytes() == before


def test_faults_are_found_before_anything_is_cached(disk):
    disk.document["annotations"][0]["category_id"] = 77
    path = disk.write()
    with pytest.raises(ValueError, match="category_id 77"):
        load_annotations(path)
    assert not cache_path(path).exists()
    with pytest.raises(ValueError, match="does not exist"):
        load_annotations(path.with_name("absent.json"))


def test_empty_boxes_are_refused_or_spoken_of_with_a_cache_as_without(disk, reads, caplog):
    disk.document["annotations"][0]["bbox"] = [10, 10, 0, 5]
    path = disk.write()
    load_annotations(path, drop_empty_boxes=True)
    caplog.clear()
    assert len(load_annotations(path, drop_empty_boxes=True).labels) == 2 and len(reads) == 1
    assert "boxes are empty" in caplog.text and "left out" in caplog.text
    with pytest.raises(ValueError, match="boxes are empty.*drop_empty_boxes"):
        load_annotations(path)


def test_labels_follow_the_training_sets_classes(disk, reads):
    path = disk.write()
    classes = ClassNames(("zero", "two", "five", "nine"), (0, 2, 5, 9))
    load_annotations(path)
    followed = follow_classes(load_annotations(path), classes, path)
    assert followed.labels.tolist() == [3, 3, 3] and followed.classes == classes and len(reads) == 1
    with pytest.raises(ValueError, match="9 'nine'.*training set"):
        follow_classes(load_annotations(path), ClassNames(("two", "five", "nein"), (2, 5, 9)), path)


def test_small_files_leave_nothing_behind(disk, monkeypatch):
    monkeypatch.setattr(annotation_cache, "SMALLEST", 8_000_000)
    path = disk.write()
    load_annotations(path)
    assert not cache_path(path).parent.exists()


def test_files_of_one_name_have_caches_of_their_own(disk):
    other = disk.folder / "other" / "instances.json"
    other.parent.mkdir()
    other.write_text(json.dumps(disk.document))
    assert cache_path(other) != cache_path(disk.write())


def test_a_file_that_changes_while_it_is_read_is_not_cached(disk, monkeypatch):
    path = disk.write()
    before = path.read_bytes()

    def read(*args, **options):
        path.write_bytes(before.replace(b'"width"', b' "width"'))
        return read_annotations(*args, **options)

    monkeypatch.setattr(annotation_cache, "read_annotations", read)
    load_annotations(path)
    assert not cache_path(path).exists()


def test_another_users_cache_is_not_trusted(disk, reads, caplog, monkeypatch):
    path = disk.write()
    load_annotations(path)
    os.chown(cache_path(path), 54321, -1) if os.getuid() == 0 else monkeypatch.setattr(
        os, "getuid", lambda: os.stat(path).st_uid + 1
    )
    load_annotations(path)
    assert len(reads) == 2 and "another user's" in caplog.text


def test_a_user_without_a_home_reads_the_file(disk, reads, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(os.path, "expanduser", lambda _: "~")
    path = disk.write()
    assert cache_path(path) is None
    assert _same(load_annotations(path), load_annotations(path)) and len(reads) == 2


def test_names_that_are_no_utf8_come_through(disk):
    disk.document["images"][1]["file_name"] = "caf\udce9.png"
    path = disk.write()
    assert load_annotations(path).file_names()[1] == load_annotations(path).file_name(1) == "caf\udce9.png"
