import json
import logging
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.teachers import FeatureKind, FeatureStore, FeatureWriter

KIND = FeatureKind("vit_small", "0123456789abcdef", (32, 48), "float16", {"cls_token": 4, "patch_tokens": 4})


def features(count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "cls_token": torch.randn(count, 4, generator=generator),
        "patch_tokens": torch.randn(count, 6, 4, generator=generator),
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("finished", [True, False])
def test_features_come_back_in_the_order_asked(tmp_path: Path, dtype: str, finished: bool) -> None:
    writer = FeatureWriter(tmp_path / "deep" / "folder", KIND._replace(dtype=dtype))
    first, second = features(2), features(1, seed=1)
    writer.write([7, "sub/b.jpg"], ["7.jpg", "sub/b.jpg"], first)
    writer.write(["ü c.jpg"], ["ü c.jpg"], second)
    if finished:
        writer.finish()
    store = FeatureStore.open(tmp_path / "deep" / "folder")
    assert store.kind == writer.kind and set(store.shard_of) == {"7", "sub/b.jpg", "ü c.jpg"}
    read = store.read(["ü c.jpg", 7, "7"])
    for name, value in read.items():
        expected = torch.stack((second[name][0], first[name][0], first[name][0]))
        assert torch.equal(value, expected.to(getattr(torch, dtype)))


def test_only_what_was_extracted_is_there(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, KIND._replace(feature_dims={"cls_token": 4}))
    writer.write([1], ["1.png"], features(1))
    assert list(FeatureStore.open(tmp_path).read([1])) == ["cls_token"]


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, KIND)
    writer.write([1], ["1.png"], features(1))
    with pytest.raises(
        ValueError, match=r"no features of 2 pictures, 2, 3 among.*has those of 1.*extract_features"
    ):
        FeatureStore.open(tmp_path).read([1, 2, 3])


def test_a_folder_without_features(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no features.*extract_features\.py"):
        FeatureStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"model_hash": "f" * 16}, "model_hash 0123456789abcdef, not ffffffffffffffff"),
        ({"size_hw": (48, 32)}, r"size_hw \(32, 48\), not \(48, 32\)"),
        ({"dtype": "bfloat16"}, "dtype float16, not bfloat16"),
        ({"feature_dims": {"cls_token": 4}}, "feature_dims"),
    ],
)
@pytest.mark.parametrize("with_index", [True, False])
def test_a_folder_holds_one_kind(
    tmp_path: Path, other: dict[str, object], said: str, with_index: bool
) -> None:
    FeatureWriter(tmp_path, KIND).write([1], ["1.png"], features(1))
    if not with_index:
        (tmp_path / "index.json").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=said):
        FeatureWriter(tmp_path, KIND._replace(**other))
    assert sorted(tmp_path.iterdir()) == before
    assert FeatureWriter(tmp_path, KIND).stored == {"1": "1.png"}


def test_a_writer_adds_to_what_is_there(tmp_path: Path) -> None:
    FeatureWriter(tmp_path, KIND).write([1, 2], ["1.png", "2.png"], features(2))
    again = FeatureWriter(tmp_path, KIND)
    assert again.stored == {"1": "1.png", "2": "2.png"}
    again.write([3], ["3.png"], features(1))
    again.finish()
    listed = json.loads((tmp_path / "index.json").read_text())["shards"]
    assert sorted(map(sorted, listed.values())) == [["1", "2"], ["3"]]
    assert set(FeatureStore.open(tmp_path).shard_of) == {"1", "2", "3"}


@pytest.mark.parametrize("damage", ["cut off", "emptied", "other"])
def test_a_damaged_shard_is_found_and_written_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = FeatureWriter(tmp_path, KIND)
    writer.write([1], ["1.png"], features(1))
    writer.write([2], ["2.png"], features(1, seed=1))
    writer.finish()
    store = FeatureStore.open(tmp_path)
    shard = tmp_path / store.shard_of["2"]
    whole = shard.read_bytes()
    shard.write_bytes({"cut off": whole[:-5], "emptied": b"", "other": b"<html>" * 99}[damage])
    with pytest.raises(ValueError, match=r"cannot be read.*extract_features\.py again"):
        store.read([2])
    with caplog.at_level(logging.WARNING):
        again = FeatureWriter(tmp_path, KIND)
    assert again.stored == {"1": "1.png"} and shard.name in caplog.text
    again.write([2], ["2.png"], features(1, seed=1))
    assert shard.read_bytes() == whole
    assert FeatureStore.open(tmp_path).read([2])["cls_token"].shape == (1, 4)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 2}', '{"format": 2, "shards": []}'])
def test_a_damaged_index_is_told_with_the_remedy(tmp_path: Path, content: str) -> None:
    FeatureWriter(tmp_path, KIND).write([1], ["1.png"], features(1))
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json cannot be read.*Delete this one file"):
        FeatureStore.open(tmp_path)
    (tmp_path / "index.json").unlink()
    FeatureWriter(tmp_path, KIND).finish()
    assert set(FeatureStore.open(tmp_path).shard_of) == {"1"}


def test_features_of_the_first_format_are_told_with_the_remedy(tmp_path: Path) -> None:
    index = {"format": 1, **KIND._asdict(), "shards": {"features-0.safetensors": ["1"]}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    for read in (FeatureStore.open, lambda folder: FeatureWriter(folder, KIND)):
        with pytest.raises(ValueError, match=r"format 1, and .* reads 2 .*Delete the folder"):
            read(tmp_path)


def test_an_id_means_one_file(tmp_path: Path) -> None:
    FeatureWriter(tmp_path, KIND).write([1, 2], ["a/1.png", "a/2.png"], features(2))
    writer = FeatureWriter(tmp_path, KIND)
    assert writer.lacking([2, 3, "1"], ["a/2.png", "b/1.png", "a/1.png"]) == [1]
    with pytest.raises(ValueError, match=r"holds a/2\.png as picture 2, which is b/2\.png now.*of their own"):
        writer.lacking([3, 2], ["b/3.png", "b/2.png"])


def test_numbers_too_large_for_float16(tmp_path: Path) -> None:
    large = {name: value * 1e5 for name, value in features(2).items()}
    writer = FeatureWriter(tmp_path, KIND)
    with pytest.raises(ValueError, match="picture 1: its cls_token .*float16 cannot hold.*bfloat16"):
        writer.write([1, 2], ["1.png", "2.png"], large)
    assert not list(tmp_path.glob("features-*")) and not list(tmp_path.glob(".unfinished-*"))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = FeatureWriter(tmp_path, KIND)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*features-.*No space left"):
        writer.write([1], ["1.png"], features(1))
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"] and not writer.stored


def test_sweeping_removes_only_what_is_unfinished(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, KIND)
    writer.write([1], ["1.png"], features(1))
    before = sorted(tmp_path.iterdir())
    (tmp_path / ".unfinished-abc").mkdir()
    (tmp_path / ".unfinished-abc" / "features-1.safetensors").write_bytes(b"half")
    writer.sweep()
    assert sorted(tmp_path.iterdir()) == before
