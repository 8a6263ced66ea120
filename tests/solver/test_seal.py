import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from src.solver.checkpoint import FORMAT, read_checkpoint, save_checkpoint
from src.solver.seal import is_sealed, seal_is_intact

DAMAGED = r"last\.pth: (is empty|is cut short|is damaged|is no checkpoint|cannot be read)"


def make_state() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"model": {"w": torch.randn(50, 7), "b": torch.zeros(3, dtype=torch.bfloat16)}, "epoch": 3}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.pth"
    save_checkpoint(path, make_state())
    return path


def flip(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_every_reader_passes_over_the_seal(saved: Path) -> None:
    assert is_sealed(saved) and seal_is_intact(saved)
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256 ") and len(archive.comment) == 71
    for mmap in (False, True):
        content = torch.load(saved, weights_only=True, mmap=mmap)
        assert content["format"] == FORMAT and torch.equal(content["model"]["w"], make_state()["model"]["w"])
    with saved.open("rb") as file:
        assert torch.load(file, weights_only=True)["epoch"] == 3


def test_each_of_300_flipped_bits_is_found_wherever_it_falls(saved: Path) -> None:
    content = saved.read_bytes()
    generator = random.Random(0)
    ends = [*range(64), *range(8 * len(content) - 8 * 100, 8 * len(content), 3)]  # magic, directory, seal
    for bit in [*generator.sample(range(8 * len(content)), 300), *ends]:
        saved.write_bytes(flip(content, bit))
        with pytest.raises(ValueError, match=DAMAGED):
            read_checkpoint(saved)
    saved.write_bytes(content)
    assert read_checkpoint(saved)["epoch"] == 3


def test_every_truncation_and_any_appended_byte_is_found(saved: Path) -> None:
    content = saved.read_bytes()
    generator = random.Random(0)
    cuts = [0, 1, 3, *generator.sample(range(4, len(content)), 200), *range(len(content) - 100, len(content))]
    for damaged in [*(content[:cut] for cut in cuts), content + b"\0", content * 2]:
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=DAMAGED):
            read_checkpoint(saved)


def test_a_seal_that_is_missing_is_said_with_what_may_be_the_cause(saved: Path) -> None:
    torch.save(torch.load(saved, weights_only=True), saved)
    with pytest.raises(ValueError, match="checksum at its end is missing.*leave its entry 'format' out"):
        read_checkpoint(saved)


@pytest.mark.parametrize("number", [{"format": 1}, {}])
def test_what_format_1_and_others_wrote_is_read_by_the_checksums_of_its_parts(
    saved: Path, number: dict[str, int]
) -> None:
    torch.save({**number, **make_state()}, saved)
    assert not is_sealed(saved)
    content, truth = saved.read_bytes(), read_checkpoint(saved)
    weights = 8 * content.index(truth["model"]["w"].numpy().tobytes())
    generator = random.Random(0)
    for bit in generator.sample(range(weights, weights + 8 * 1400), 20):
        saved.write_bytes(flip(content, bit))
        with pytest.raises(ValueError, match="differs from its checksum"):
            read_checkpoint(saved)
    directory = 8 * content.index(b"PK\x01\x02")  # here Python's zipfile raises errors of many kinds
    for bit in generator.sample(range(directory, 8 * len(content)), 300):
        saved.write_bytes(flip(content, bit))
        try:
            read = read_checkpoint(saved)
        except ValueError as error:
            assert "last.pth: " in str(error)
        else:
            assert torch.equal(read["model"]["w"], truth["model"]["w"])
