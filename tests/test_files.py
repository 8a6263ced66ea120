import os
from pathlib import Path

import pytest

from src.files import make_folder, staged_folder, write_whole


def test_writes_and_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    write_whole(target, b"one")
    write_whole(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["file.bin"]


def test_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.bin"
    write_whole(target, b"one")

    def refuse(descriptor: int) -> None:
        raise OSError(28, f"No space left on device {descriptor}")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ValueError, match=r"cannot write .*file\.bin: No space left"):
        write_whole(target, b"two")
    assert target.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(
        ValueError, match=r"make the output folder .*taken.*train\.py: --output-dir; tools: -o"
    ):
        make_folder(tmp_path / "taken" / "below")


def test_staged_files_appear_together(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a" / "b") as stage:
        (stage / "one").write_text("1")
        assert list((tmp_path / "a" / "b").glob("one")) == []
    assert os.listdir(tmp_path / "a" / "b") == ["one"]


def test_staged_files_vanish_on_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "new") as stage:
        (stage / "one").write_text("1")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_new_folder_appears_in_one_step_with_all_files(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "new") as stage:
        (stage / "one").write_text("1")
        (stage / "two").write_text("2")
        assert not (tmp_path / "new").exists()
    assert sorted(os.listdir(tmp_path / "new")) == ["one", "two"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_in_the_way_is_found_before_anything_moves(tmp_path: Path) -> None:
    for name in ("one", "old"):
        (tmp_path / name).write_text("before")
    (tmp_path / "two").mkdir()
    with (
        pytest.raises(ValueError, match=r"two: a folder has this name"),
        staged_folder(tmp_path, obsolete=["old"]) as stage,
    ):
        (stage / "one").write_text("after")
        (stage / "two").write_text("after")
    assert sorted(os.listdir(tmp_path)) == ["old", "one", "two"]
    assert (tmp_path / "one").read_text() == "before"


def test_obsolete_files_go_as_the_new_ones_come(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("before")
    (tmp_path / "other").write_text("before")
    with staged_folder(tmp_path, obsolete=["old", "absent"]) as stage:
        (stage / "one").write_text("after")
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


def test_a_place_that_takes_no_folder_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir

    def refuse(path: Path, *args: object, **more: object) -> None:
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        made(path, *args, **more)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ValueError, match=r"new: Permission denied.*choose another folder"):
        with staged_folder(tmp_path / "new"):
            pass
