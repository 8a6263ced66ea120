import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.solver.checkpoint import read_checkpoint, save_checkpoint
from src.solver.checkpoint_folder import CheckpointFolder

CALLS = ("open", "mkdir", "fsync", "link", "rename", "replace", "unlink")


def make_state(step: int) -> dict[str, Any]:
    return {"model": {"w": torch.full((20,), float(step))}, "step": step}


def steps(folder: Path) -> dict[str, int]:
    """The step that each checkpoint in `folder` was saved at."""
    return {path.name: read_checkpoint(path)["step"] for path in sorted(folder.glob("*.pth"))}


def damage(path: Path) -> None:
    """Flip a bit, in a file of its own: hard links share their content."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def run(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "run", keep=3)


def save_steps(run: CheckpointFolder, *numbers: int) -> None:
    for number in numbers:
        run.save_last(make_state(number))


class Killed(BaseException):
    """What a kill is to the process: nothing after it runs, no `finally` either."""


def kill_at(patch: pytest.MonkeyPatch, number: int) -> Callable[[], bool]:
    """From the `number`-th call that reaches the file system on, each ends in `Killed`; tells if one did."""
    done = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            done[0] += 1
            if done[0] >= number:
                raise Killed
            return real(*args, **named)

        return call

    for name in CALLS:
        patch.setattr(os, name, counted(getattr(os, name)))
    patch.setattr(Path, "open", counted(Path.open))
    return lambda: done[0] >= number


def killed_everywhere(
    prepare: Callable[[Path], CheckpointFolder], act: Callable[[CheckpointFolder], object], tmp_path: Path
) -> list[CheckpointFolder]:
    """A folder for each moment at which `act` can be killed, after the kill."""
    folders: list[CheckpointFolder] = []
    killed = True
    while killed:
        run = prepare(tmp_path / f"run{len(folders)}")
        with pytest.MonkeyPatch.context() as patch:
            was_killed = kill_at(patch, len(folders) + 1)
            try:
                act(run)
            except Killed:
                pass
            killed = was_killed()
        folders.append(run)
    return folders


def without_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_the_newest_few_are_kept_in_order(run: CheckpointFolder) -> None:
    save_steps(run, 1)
    assert steps(run.folder) == {"last.pth": 1}
    save_steps(run, 2, 3, 4)
    run.save_best(make_state(2))
    assert steps(run.folder) == {"best.pth": 2, "last.1.pth": 3, "last.2.pth": 2, "last.pth": 4}
    assert (run.last, run.best) == (run.folder / "last.pth", run.folder / "best.pth")
    found = run.newest_good()
    assert found is not None and (found.path, found.content["step"]) == (run.last, 4)


@pytest.mark.parametrize(("keep", "kept"), [(1, {"last.pth": 5}), (2, {"last.1.pth": 4, "last.pth": 5})])
def test_a_smaller_number_drops_the_oldest(run: CheckpointFolder, keep: int, kept: dict[str, int]) -> None:
    save_steps(run, 1, 2, 3, 4)
    save_steps(CheckpointFolder(run.folder, keep=keep), 5)
    assert steps(run.folder) == kept


def test_a_file_system_without_links_keeps_them_too(
    run: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    save_steps(run, 1, 2, 3, 4)
    assert steps(run.folder) == {"last.1.pth": 3, "last.2.pth": 2, "last.pth": 4}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 4])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_kill_at_any_moment_of_a_save_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, keep: int, before: int
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)

    def prepare(folder: Path) -> CheckpointFolder:
        run = CheckpointFolder(folder, keep=keep)
        save_steps(run, *range(1, before + 1))
        return run

    runs = killed_everywhere(prepare, lambda run: run.save_last(make_state(9)), tmp_path)
    assert len(runs) > 5
    for run in runs:
        assert run.last.exists() or not links or before == 0
        found = run.newest_good()
        step = found[1]["step"] if found else 0
        assert step in {before, 9}
        # the run goes on, nothing is in its way, and nothing was lost but the oldest
        save_steps(run, 10)
        newest = [10, *[9] * (step == 9), *range(before, 0, -1)][:keep]
        names = ["last.pth", *(f"last.{i}.pth" for i in range(1, keep))]
        assert steps(run.folder) == dict(zip(names, newest, strict=False))
        assert not list(run.folder.glob("*.tmp"))


def test_a_kill_while_the_best_is_saved_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    def prepare(folder: Path) -> CheckpointFolder:
        run = CheckpointFolder(folder, keep=2)
        run.save_best(make_state(1))
        return run

    found = set()
    for run in killed_everywhere(prepare, lambda run: run.save_best(make_state(2)), tmp_path):
        found.add(steps(run.folder)["best.pth"])
        save_steps(run, 3)
        assert not list(run.folder.glob("*.tmp"))
    assert found == {1, 2}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_stops_with_one_message_and_the_old_files_whole(
    run: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    save_steps(run, 1, 2, 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(ValueError, match=rf"last\.pth: .*{os.strerror(number)}.*unchanged"):
            save_steps(run, 4)
        with pytest.raises(ValueError, match=rf"best\.pth: .*{os.strerror(number)}.*nothing is left"):
            run.save_best(make_state(4))
    assert steps(run.folder) == {"last.1.pth": 2, "last.2.pth": 1, "last.pth": 3}
    assert not list(run.folder.glob("*.tmp"))


def test_a_damaged_one_is_passed_over_and_named(
    run: CheckpointFolder, caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(run, 1, 2, 3)
    run.save_best(make_state(1))
    damage(run.last)
    (run.folder / "last.1.pth").write_bytes((run.folder / "last.1.pth").read_bytes()[:-1000])
    (run.folder / "last.pth.tmp").write_bytes(b"half")
    found = run.newest_good()
    assert found is not None and (found[0].name, found[1]["step"]) == ("last.2.pth", 1)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2 and all("taking " + str(found[0]) + " instead" in line for line in said)
    assert "last.pth: is damaged" in said[0] and "last.1.pth: is cut short" in said[1]
    damage(found[0])
    found = run.newest_good()
    assert found is not None and found[0] == run.best
    damage(run.best)
    with pytest.raises(
        ValueError, match=r"(?s)last\.pth: .*last\.1\.pth: .*last\.2\.pth: .*best\.pth: .*start"
    ):
        run.newest_good()


def test_more_than_nine_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run = CheckpointFolder(tmp_path, keep=12)
    save_steps(run, *range(1, 13))
    for i in range(2, 10):
        (tmp_path / f"last.{i}.pth").unlink()
    damage(run.last)
    damage(tmp_path / "last.1.pth")
    found = run.newest_good()
    assert found is not None and found[0].name == "last.10.pth"


def test_no_checkpoint_is_no_fault(run: CheckpointFolder) -> None:
    assert run.newest_good() is None and run.set_aside() is None
    run.folder.mkdir()
    (run.folder / "pictures").mkdir()
    (run.folder / "last.pth.tmp").write_bytes(b"half")
    assert run.newest_good() is None and run.set_aside() is None


def test_an_earlier_run_is_set_aside(run: CheckpointFolder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for number in (1, 2):
        save_steps(run, number, number + 10)
        run.save_best(make_state(number))
        (run.folder / "metrics.jsonl").write_text(f"{number}\n")
        aside = run.set_aside()
        assert aside == run.folder / f"previous-{number}"
        assert run.newest_good() is None
        assert steps(aside) == {"best.pth": number, "last.1.pth": number, "last.pth": number + 10}
        assert (aside / "metrics.jsonl").read_text() == f"{number}\n"
    assert sorted(path.name for path in run.folder.iterdir()) == ["previous-1", "previous-2"]
    assert len(caplog.records) == 2
    assert f"best.pth, last.1.pth, last.pth, metrics.jsonl are in {aside} now" in caplog.text


@pytest.mark.parametrize("then", ["set aside", "saved"])
def test_a_kill_while_setting_aside_mixes_no_runs_and_loses_nothing(tmp_path: Path, then: str) -> None:
    def prepare(folder: Path) -> CheckpointFolder:
        run = CheckpointFolder(folder, keep=2)
        save_steps(run, 1, 2)
        run.save_best(make_state(1))
        return run

    whole = {"best.pth": 1, "last.1.pth": 1, "last.pth": 2}
    runs = killed_everywhere(prepare, CheckpointFolder.set_aside, tmp_path)
    assert len(runs) > 6
    for run in runs:
        if run.newest_good() is not None:  # killed before it began
            assert steps(run.folder) == whole
            run.set_aside()
        elif then == "set aside":
            run.set_aside()
        save_steps(run, 7)
        assert steps(run.folder) == {"last.pth": 7}
        assert steps(run.folder / "previous-1") == whole
        assert sorted(path.name for path in run.folder.iterdir()) == ["last.pth", "previous-1"]


def test_what_cannot_be_moved_aside_is_said(run: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    save_steps(run, 1)

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ValueError, match="cannot be moved aside: .*Read-only.*--output-dir"):
        run.set_aside()


def make_other(folder: Path, *, best: int) -> CheckpointFolder:
    """A run of steps 30 and 70, to go on from elsewhere."""
    other = CheckpointFolder(folder, keep=3)
    save_steps(other, 30, 70)
    other.save_best(make_state(best))
    return other


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("earlier", [0, 2])
def test_a_folder_that_is_claimed_to_go_on_elsewhere_gives_that_checkpoint_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, earlier: int
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    other = make_other(tmp_path / "other", best=50)
    left = {"last.1.pth": 30, "last.pth": 70, "best.pth": 50}

    def prepare(folder: Path) -> CheckpointFolder:
        run = CheckpointFolder(folder, keep=3)
        run.folder.mkdir()
        save_steps(run, *range(1, earlier + 1))
        return run

    def claim(run: CheckpointFolder) -> None:
        run.claim(other.last, step=70)

    for run in killed_everywhere(prepare, claim, tmp_path):
        found = run.newest_good()
        assert found is None or found.content["step"] in {earlier, 70}
        claim(run)  # as the next attempt does, which has not begun yet
        assert steps(run.folder) == {"last.pth": 70, "best.pth": 50}
        save_steps(run, 71)
        assert steps(run.folder) == {"last.pth": 71, "last.1.pth": 70, "best.pth": 50}
        assert steps(other.folder) == left
        assert not list(run.folder.glob("*.tmp"))


def test_a_best_checkpoint_of_later_than_the_resumed_one_stays_behind(
    run: CheckpointFolder, tmp_path: Path
) -> None:
    other = make_other(tmp_path / "other", best=60)
    run.folder.mkdir()
    run.claim(other.folder / "last.1.pth", step=30)
    assert steps(run.folder) == {"last.pth": 30}
    damage(other.best)
    run.claim(other.last, step=70)
    assert steps(run.folder) == {"last.pth": 70}


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("links", [True, False])
def test_going_on_from_the_best_puts_it_before_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, keep: int
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    run = CheckpointFolder(tmp_path, keep=keep)
    save_steps(run, 10, 20)
    run.save_best(make_state(25))
    run.claim(run.best, step=25)
    found = run.newest_good()
    assert found is not None and found.content["step"] == 25
    newest = dict(zip(["last.pth", "last.1.pth", "last.2.pth"][:keep], [25, 20, 10], strict=False))
    assert steps(run.folder) == {**newest, "best.pth": 25}


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_after_a_damaged_one_was_passed_over_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", without_links)

    def prepare(folder: Path) -> CheckpointFolder:
        run = CheckpointFolder(folder, keep=2)
        save_steps(run, 1, 2)
        damage(run.last)
        return run

    def go_on(run: CheckpointFolder) -> None:
        found = run.newest_good()
        assert found is not None
        run.claim(found.path, step=1)
        save_steps(run, 3)

    for run in killed_everywhere(prepare, go_on, tmp_path):
        found = run.newest_good()
        assert found is not None and found.content["step"] in {1, 3}


def test_what_was_set_aside_is_found_where_it_is_now(run: CheckpointFolder, tmp_path: Path) -> None:
    best, elsewhere = run.best, tmp_path / "best.pth"
    assert run.where_now(best) == best
    for number in (1, 2):
        run.save_best(make_state(number))
        assert run.where_now(best) == best
        run.set_aside()
        assert run.where_now(best) == run.folder / f"previous-{number}" / "best.pth"
    assert run.where_now(run.last) == run.last
    assert run.where_now(elsewhere) == elsewhere


def test_what_an_older_version_wrote_is_taken(run: CheckpointFolder) -> None:
    run.folder.mkdir()
    torch.save({"format": 1, **make_state(4)}, run.last)
    found = run.newest_good()
    assert found is not None and found[1]["step"] == 4
    save_checkpoint(run.best, make_state(3))
    save_steps(run, 5)
    assert steps(run.folder) == {"best.pth": 3, "last.1.pth": 4, "last.pth": 5}
