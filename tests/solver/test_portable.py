import json
import random
from pathlib import Path

import pytest
import torch

from src.deploy.checkpoint_files import describe, write_portable
from src.solver.checkpoint import read_checkpoint, save_checkpoint

SEALED = ("format", "sha256")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A safetensors file and its JSON."""
    torch.manual_seed(0)
    classes = {"names": ["cat", "größe"], "ids": [1, 7]}
    state = {"model": {"head.weight": torch.randn(5, 4)}, "epoch": 3, "step": 12, "best": {"AP": 0.1 + 0.2}}
    save_checkpoint(tmp_path / "a.pth", state | {"classes": classes, "config": "num_classes: 2\n"})
    write_portable(tmp_path / "a.pth", tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors", tmp_path / "a.json"


@pytest.mark.parametrize("which", [0, 1])
def test_each_flipped_bit_and_truncation_is_found(pair: tuple[Path, Path], which: int) -> None:
    path = pair[which]
    content = path.read_bytes()
    generator = random.Random(which)
    damaged = [content[:cut] for cut in generator.sample(range(len(content) - 1), 50)]
    for bit in generator.sample(range(8 * len(content)), 300):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.(json|safetensors): (is damaged|cannot be read|holds a)"):
            read_checkpoint(pair[0])


def test_the_message_names_the_file_and_what_an_editor_does(pair: tuple[Path, Path]) -> None:
    tensors, beside = pair
    card = json.loads(beside.read_text())
    card["classes"]["names"][0] = "dog"
    beside.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"a\.json: is damaged.*edited a\.json yourself, remove .*'sha256'"):
        read_checkpoint(tensors)
    del card["format"], card["sha256"]
    beside.write_text(json.dumps(card))
    assert read_checkpoint(tensors)["classes"]["names"] == ["dog", "größe"]


def test_tensors_of_another_export_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "b.pth", {"model": {"head.weight": torch.zeros(5, 4)}})
    write_portable(tmp_path / "b.pth", tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").replace(pair[0])
    with pytest.raises(
        ValueError, match=r"a\.safetensors: is damaged, it differs from its checksum in a\.json"
    ):
        read_checkpoint(pair[0])


def test_another_layout_of_the_json_and_its_absence_are_read(pair: tuple[Path, Path]) -> None:
    tensors, beside = pair
    truth = read_checkpoint(tensors)
    assert truth["epoch"] == 3 and "intact, in a.json" in describe(tensors)
    beside.write_text(json.dumps(json.loads(beside.read_text()), sort_keys=True))
    assert read_checkpoint(tensors)["classes"] == truth["classes"]
    beside.unlink()
    assert read_checkpoint(tensors).keys() == {"model"}
    assert describe(tensors).count("checksum        none") == 1


def test_info_tells_sealed_from_other_files(tmp_path: Path) -> None:
    state = {"model": {"head.weight": torch.zeros(5, 4)}}
    save_checkpoint(tmp_path / "a.pth", state)
    assert "checksum        intact, of the whole file" in describe(tmp_path / "a.pth")
    torch.save(state, tmp_path / "c.pth")
    assert "checksum        none of the whole file" in describe(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", "x"),
        ("classes", []),
        ("classes", {"names": ["cat"]}),
        ("classes", {"names": ["cat", "dog"], "ids": [1]}),
        ("classes", {"names": [1, 2], "ids": [1, 2]}),
        ("classes", {"names": ["cat", "dog"], "ids": [1, "7"]}),
        ("classes", {"names": ["cat", "dog"], "ids": [1, True]}),
        ("classes", {"names": "ab", "ids": [1, 2]}),
        ("epoch", "x"),
        ("step", [1]),
        ("step_in_epoch", True),
        ("best", "y"),
        ("best", {"AP": "high"}),
        ("config", [1]),
        ("versions", 3),
    ],
)
def test_an_entry_of_the_wrong_type_is_told(pair: tuple[Path, Path], key: str, value: object) -> None:
    beside = pair[1]
    card = {name: one for name, one in json.loads(beside.read_text()).items() if name not in SEALED}
    beside.write_text(json.dumps(card))
    assert read_checkpoint(pair[0])["epoch"] == 3
    beside.write_text(json.dumps({**card, key: value}))
    with pytest.raises(ValueError, match=rf"a\.json: '{key}' is .* has to be .*; correct it"):
        read_checkpoint(pair[0])
