"""A copy of Meta's DINOv3 code for those who want to read or run it; nothing of ours needs it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..files import make_folder

OFFICIAL = "https://github.com/facebookresearch/dinov3.git"
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "LC_ALL": "C"}


def vendor(repo_url: str, target: Path, *, ref: str, force: bool) -> str:
    """Clone one commit of a git repository into `target`, whole or not at all.

    Args:
        repo_url: Anything that git fetches from.
        target: A folder that is missing or empty, or with `force` an earlier clone, which is replaced.
        ref: A branch, a tag or a whole commit id.
        force: Whether to replace an earlier clone, changes made in it included.

    Returns:
        The commit's id.

    Raises:
        ValueError: `target` holds something, or git is missing or failed; `target` is as it was.
    """
    if shutil.which("git") is None:
        raise ValueError("git is not installed, or not on the PATH; install it with your system's packages")
    _check_target(target, force)
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as stage:
        clone = Path(stage) / "new"
        _git("init", "--quiet", "--", str(clone))
        _git("-C", str(clone), "remote", "add", "--", "origin", repo_url)
        # one commit, by its id too: `git clone --depth 1` takes names of branches and tags alone
        _git("-C", str(clone), "fetch", "--quiet", "--depth", "1", "--", "origin", ref)
        _git("-C", str(clone), "checkout", "--quiet", "--detach", "FETCH_HEAD")
        commit = _git("-C", str(clone), "rev-parse", "HEAD")
        if target.exists():
            os.replace(target, Path(stage) / "old")
        os.replace(clone, target)
    return commit


def _check_target(target: Path, force: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ValueError(f"{target} is no folder; choose another --target-dir")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / ".git").is_dir():
        raise ValueError(f"{target} holds something that is no clone; choose another --target-dir")
    if Path.cwd().is_relative_to(target.resolve()):
        raise ValueError(f"{target} is where you are; choose another --target-dir")
    if not force:
        raise ValueError(f"{target} holds a clone already; --force replaces it, with any changes made in it")


def _git(*arguments: str) -> str:
    """What git says; no question is asked on the terminal."""
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, env=os.environ | _ENVIRONMENT
    )
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout.strip()
