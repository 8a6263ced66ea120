import argparse
import errno
import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import nn

from src.optim import ModelEMA, build_schedule
from src.solver import checkpoint as checkpoint_module
from src.solver.checkpoint import FORMAT, read_checkpoint, save_checkpoint


def make_state(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    ema = ModelEMA(model, decay=0.99)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = build_schedule(
        optimizer, total_steps=10, steps_per_epoch=5, warmup="LinearWarmup", warmup_steps=2
    )
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    schedule.step()
    ema.update(model)
    return {
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "epoch": 3,
        "step": 40,
        "rng": {
            "numpy": np.random.get_state()[1],
            "python": random.getstate(),
            "torch": torch.get_rng_state(),
        },
        "classes": {"names": ["a", "b"], "ids": [1, 7]},
        "config": "num_classes: 2\n",
        "metrics": {"AP": np.float64(0.5), "AP50": np.float32(0.25)},
        "best": {},
    }


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "last.pth"
    save_checkpoint(path, make_state())
    return path


def test_everything_comes_back_and_nothing_else_is_left(saved: Path) -> None:
    state = make_state()
    got = torch.load(saved, weights_only=True)
    assert_same(got, read_checkpoint(saved))
    assert (got["format"], got["versions"]["torch"]) == (FORMAT, str(torch.__version__))
    for key in (
        "model",
        "ema",
        "optimizer",
        "lr_scheduler",
        "scaler",
        "epoch",
        "step",
        "classes",
        "config",
        "best",
    ):
        assert_same(dict(got)[key], state[key])
    assert got["metrics"] == {"AP": 0.5, "AP50": 0.25}
    assert type(got["metrics"]["AP"]) is float
    assert got["rng"]["numpy"].shape == (624,)
    assert [p.name for p in saved.parent.iterdir()] == ["last.pth"]


def test_optimizer_and_schedule_go_on_from_the_file(saved: Path) -> None:
    state = read_checkpoint(saved)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    model.load_state_dict(state["model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = build_schedule(
        optimizer, total_steps=10, steps_per_epoch=5, warmup="LinearWarmup", warmup_steps=2
    )
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["lr_scheduler"])
    ema = ModelEMA(model)
    ema.load_state_dict(state["ema"])
    assert (schedule.last_epoch, ema.updates, ema.decay) == (1, 1, 0.99)
    random.setstate(state["rng"]["python"])
    torch.set_rng_state(state["rng"]["torch"])


def test_a_saved_state_is_not_changed_by_saving(tmp_path: Path) -> None:
    state = make_state()
    save_checkpoint(tmp_path / "a.pth", state)
    assert_same(state["model"], make_state()["model"])
    assert type(state["metrics"]["AP"]) is np.float64


def test_a_value_that_could_not_be_read_back_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(TypeError, match=r"config\.args\[1\] is a Namespace"):
        save_checkpoint(path, {"config": {"args": [1, argparse.Namespace()]}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_error_of_the_disk_leaves_the_old_file_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = saved.read_bytes()
    monkeypatch.setattr(checkpoint_module.os, where, fail)
    with pytest.raises(
        ValueError, match=rf"last\.pth.*{os.strerror(number)}.*MB free.*unchanged.*--output-dir"
    ):
        save_checkpoint(saved, make_state(1))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["last.pth"]


class Faulty:
    """A file whose method `where` fails at its third call, or its first where it is called once."""

    def __init__(self, file: IO[bytes], where: str, error: BaseException) -> None:
        self.file, self.where, self.error = file, where, error
        self.left = 3 if where == "write" else 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def _count(self, name: str) -> None:
        self.left -= name == self.where
        if name == self.where and self.left <= 0:
            raise self.error

    def write(self, data: bytes) -> int:
        self._count("write")
        return self.file.write(data)

    def flush(self) -> None:
        self._count("flush")
        self.file.flush()

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._count("close")


@pytest.mark.parametrize("where", ["write", "flush", "close"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_what_ends_a_write_is_told_apart(
    saved: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    before = saved.read_bytes()
    real = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Faulty(real(path, mode), where, error))
        expected = ValueError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match="Input/output error" if expected is ValueError else None):
            save_checkpoint(saved, make_state(1))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["last.pth"]


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The kernel itself refuses to let a file grow past 4 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
def test_a_write_that_the_kernel_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="File too large.*nothing is left there"):
        save_checkpoint(tmp_path / "best.pth", {"model": {"w": torch.zeros(100_000)}})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_saving_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = saved.read_bytes()
    monkeypatch.setattr(checkpoint_module.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, make_state(1))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["last.pth"]


def test_what_a_killed_run_left_does_not_hinder_the_next(saved: Path) -> None:
    saved.with_name("last.pth.tmp").write_bytes(b"half a checkpoint")
    save_checkpoint(saved, make_state(1))
    assert_same(read_checkpoint(saved)["model"], make_state(1)["model"])
    assert [p.name for p in saved.parent.iterdir()] == ["last.pth"]


def test_file_and_folder_are_synced_in_order(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        checkpoint_module.os,
        "fsync",
        lambda fd: (done.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"), fsync(fd)),
    )
    monkeypatch.setattr(checkpoint_module.os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    save_checkpoint(saved, make_state(1))
    assert done == ["file", "rename", "folder"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="could not be written"):
        save_checkpoint(tmp_path / "file" / "last.pth", {"epoch": 1})


def test_a_missing_file_names_what_is_there(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"best\.pth: there is no such checkpoint; .*run holds last\.pth"):
        read_checkpoint(saved.with_name("best.pth"))
    with pytest.raises(ValueError, match=r"is a folder; give a \.pth file; .*holds last\.pth"):
        read_checkpoint(saved.parent)
    with pytest.raises(ValueError, match=r"holds no \.pth file"):
        read_checkpoint(saved.parent.parent / "x.pth")


@pytest.mark.parametrize(
    "content", [b"hello, this is text", b"\x80\x02garbage", b"PKgarbage", b"\x89PNG\r\n"]
)
def test_what_is_no_checkpoint_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.pth: (is no checkpoint; give a \.pth|cannot be read as a checkpoint)"
    ):
        read_checkpoint(path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    for content, name in (
        ({"model": Trap()}, "mkdir"),
        ({"args": argparse.Namespace(x=1)}, "argparse.Namespace"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=rf"a\.pth: holds a Python object \(.*{name}\).*could run code"):
            read_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "trapped").exists()


def test_the_format_before_torch_1_6_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["w"], torch.ones(2))


def test_other_contents_and_newer_formats_are_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds a Tensor, no mapping"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save({"format": FORMAT + 1}, tmp_path / "b.pth")
    with pytest.raises(
        ValueError, match=f"format {FORMAT + 1}, and this version reads up to {FORMAT}; update"
    ):
        read_checkpoint(tmp_path / "b.pth")
