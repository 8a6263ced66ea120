import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.setup import vendoring
from src.setup.licence import ADDRESS
from src.setup.vendoring import vendor

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Whose machine this is makes no difference."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A bare repository of three commits, the first with a tag, the second on a branch of its own."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "-b", "main")
    for number in range(3):
        (work / "hubconf.py").write_text(f"NUMBER = {number}\n")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", f"number {number}")
        git(work, *(["tag", "v0"], ["branch", "side"], ["status"])[number])
    git(tmp_path, "clone", "--quiet", "--bare", str(work), "upstream.git")
    return tmp_path / "upstream.git"


def number(target: Path) -> int:
    return int((target / "hubconf.py").read_text().rpartition(" ")[2])


def test_one_commit_of_the_default_branch(upstream, tmp_path):
    target = tmp_path / "third_party" / "dinov3"
    commit = vendor(upstream.as_uri(), target, ref="HEAD", force=False)
    assert commit == git(upstream, "rev-parse", "main") == git(target, "rev-parse", "HEAD")
    assert number(target) == 2
    assert git(target, "rev-list", "--count", "HEAD") == "1"
    assert git(target, "remote", "get-url", "origin") == upstream.as_uri()
    assert [path.name for path in target.parent.iterdir()] == ["dinov3"]


@pytest.mark.parametrize(("ref", "expected"), [("v0", 0), ("side", 1), ("", 1)])
def test_a_ref_by_any_name(upstream, tmp_path, ref, expected):
    target = tmp_path / "dinov3"
    vendor(upstream.as_uri(), target, ref=ref or git(upstream, "rev-parse", "side"), force=False)
    assert number(target) == expected


def test_an_earlier_clone_is_replaced_with_force_alone(upstream, tmp_path):
    target = tmp_path / "dinov3"
    vendor(upstream.as_uri(), target, ref="v0", force=False)
    (target / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds a clone already; --force"):
        vendor(upstream.as_uri(), target, ref="HEAD", force=False)
    assert number(target) == 0 and (target / "mine.txt").exists()
    vendor(upstream.as_uri(), target, ref="HEAD", force=True)
    assert number(target) == 2 and not (target / "mine.txt").exists()


def test_what_is_no_clone_is_never_replaced(upstream, tmp_path, monkeypatch):
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    file.write_text("a file")
    link.symlink_to(folder)
    for target, words in ((folder, "no clone"), (file, "no folder"), (link, "no folder")):
        with pytest.raises(ValueError, match=words):
            vendor(upstream.as_uri(), target, ref="HEAD", force=True)
    assert (folder / "thesis.tex").exists() and file.read_text() == "a file"
    clone = tmp_path / "clone"
    vendor(upstream.as_uri(), clone, ref="HEAD", force=False)
    monkeypatch.chdir(clone)
    with pytest.raises(ValueError, match="where you are"):
        vendor(upstream.as_uri(), Path("../clone"), ref="HEAD", force=True)


def test_an_empty_folder_is_filled(upstream, tmp_path):
    (tmp_path / "dinov3").mkdir()
    vendor(upstream.as_uri(), tmp_path / "dinov3", ref="HEAD", force=False)
    assert number(tmp_path / "dinov3") == 2


@pytest.mark.parametrize(
    ("url", "ref"), [("missing", "HEAD"), ("upstream.git", "no-such-branch"), ("ext::sh", "x")]
)
def test_a_failure_leaves_everything_as_it_was(upstream, tmp_path, url, ref):
    target = tmp_path / "parent" / "dinov3"
    vendor(upstream.as_uri(), target, ref="v0", force=False)
    with pytest.raises(
        ValueError, match=r"git .*fetch .*(not appear|couldn't find|not allowed|not supported)"
    ):
        vendor(url if "::" in url else str(tmp_path / url), target, ref=ref, force=True)
    assert number(target) == 0
    assert [path.name for path in target.parent.iterdir()] == ["dinov3"]


def test_an_interruption_leaves_no_half_clone(upstream, tmp_path, monkeypatch):
    def interrupted(*arguments: str) -> str:
        if "checkout" in arguments:
            raise KeyboardInterrupt
        return real(*arguments)

    real = vendoring._git
    monkeypatch.setattr(vendoring, "_git", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vendor(upstream.as_uri(), tmp_path / "parent" / "dinov3", ref="HEAD", force=False)
    assert list((tmp_path / "parent").iterdir()) == []


def test_a_machine_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="git is not installed"):
        vendor("anywhere", tmp_path / "dinov3", ref="HEAD", force=False)


def test_the_door_says_what_is_there_and_under_which_licence(
    upstream, tmp_path, repo_root, monkeypatch, capsys
):
    door = str(repo_root / "tools" / "vendor_dinov3.py")
    arguments = ["--repo-url", upstream.as_uri(), "--target-dir", str(tmp_path / "dinov3"), "--ref", "v0"]
    monkeypatch.setattr(sys, "argv", [door, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(door, run_name="__main__")
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert git(upstream, "rev-parse", "v0") in out and ADDRESS in out


def test_the_default_folder_is_ignored(repo_root):
    assert "/third_party/" in (repo_root / ".gitignore").read_text().splitlines()
