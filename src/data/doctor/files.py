"""Whether the pictures of a list are in their folder, and stay in it."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .findings import Findings


def check_files(img_folder: Path, names: Sequence[str], findings: Findings) -> list[str | None]:
    """The path of each picture; None, with a finding, where it is missing or lies elsewhere."""
    if not img_folder.is_dir():
        findings.add("folder-missing", [img_folder])
        return [None] * len(names)
    by_folder: dict[str, list[int]] = defaultdict(list)
    for k, name in enumerate(names):
        by_folder[os.path.dirname(name)].append(k)
    root = os.path.realpath(img_folder)
    paths: list[str | None] = [None] * len(names)
    missing: list[str] = []
    misspelt: list[str] = []
    outside: list[str] = []
    for sub, chosen in by_folder.items():
        folder = os.path.join(img_folder, sub)
        entries = _entries(folder)
        spelt = {_plain(name): name for name in entries}
        is_inside = _is_in(root, os.path.realpath(folder))
        for k in chosen:
            name = os.path.basename(names[k])
            path = os.path.join(folder, name)
            if name not in entries:
                there = spelt.get(_plain(name))
                (missing if there is None else misspelt).append(
                    names[k] if there is None else f"{names[k]} (the file is {there})"
                )
                continue
            is_link, is_file = entries[name]
            if not (_is_in(root, os.path.realpath(path)) if is_link else is_inside):
                outside.append(f"{names[k]} -> {os.path.realpath(path)}")
            elif not is_file:
                missing.append(f"{names[k]} (no regular file)")
            else:
                paths[k] = path
    if missing:
        missing[0] += f" (looked for in {img_folder})"
    findings.add("picture-missing", missing)
    findings.add("picture-name-case", misspelt)
    findings.add("picture-outside", outside)
    return paths


def _entries(folder: str) -> dict[str, tuple[bool, bool]]:
    """Whether each entry of a folder is a link, and a file in the end; empty where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: (entry.is_symlink(), entry.is_file()) for entry in entries}
    except OSError:
        return {}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_in(root: str, path: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
