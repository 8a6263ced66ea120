"""Training against validation: categories, boxes, and pictures that are in both.

Legend: T training pictures, V validation pictures.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...structures import ClassNames
from .checked import strangers
from .findings import Findings

MAX_DISTANCE = 18  # differing bits of 128 up to which two pictures look alike; docs/doctor.md has the figures
BLOCK = 1024  # validation pictures compared at once


class Split(NamedTuple):
    """What comparing sets needs of each.

    Attributes:
        name: `train`, `val` or another.
        classes: Its categories.
        names: File names of the pictures that are there.
        paths: Of these pictures.
        fingerprints: Of these pictures; None where there is none. Empty if none was decoded.
    """

    name: str
    classes: ClassNames
    names: Sequence[str]
    paths: Sequence[str]
    fingerprints: Sequence[NDArray[np.float32] | None] = ()


def check_splits(train: Split, val: Split, findings: Findings) -> None:
    """Compare a validation set with the training set; contents only where both were decoded."""
    if train.classes.ids and val.classes.ids:
        others = strangers(val.classes, train.classes)
        findings.add("categories-differ", others)
        absent = set(train.classes.ids) - set(val.classes.ids) if not others else set()
        pairs = zip(train.classes.ids, train.classes.names, strict=True)
        findings.add("categories-missing", [f"{i} {name!r}" for i, name in pairs if i in absent])
    real = {os.path.realpath(path): name for path, name in zip(train.paths, train.names, strict=True)}
    same = {k: real[found] for k, p in enumerate(val.paths) if (found := os.path.realpath(p)) in real}
    findings.add("split-same-file", [val.names[k] for k in same])
    if train.fingerprints and val.fingerprints:
        twins = _same_bytes(train, val, set(same))
        findings.add("split-same-bytes", [f"{val.names[k]} = {name}" for k, name in twins.items()])
        findings.add("split-look-alike", _alike(train, val, {*same, *twins}))


def _same_bytes(train: Split, val: Split, known: set[int]) -> dict[int, str]:
    """Training pictures of the same content, by the validation picture's index; only equal sizes are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for k, path in enumerate(train.paths):
        by_size[os.path.getsize(path)].append(k)
    digests: dict[int, str] = {}
    found: dict[int, str] = {}
    for k, path in enumerate(val.paths):
        rivals = by_size.get(os.path.getsize(path), []) if k not in known else []
        own = _digest(path) if rivals else ""
        for j in rivals:
            digests[j] = digests.get(j) or _digest(train.paths[j])
            if digests[j] == own:
                found[k] = train.names[j]
                break
    return found


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _alike(train: Split, val: Split, known: set[int]) -> list[str]:
    """Validation pictures whose fingerprint differs little from a training picture's, the nearest first."""
    there = [k for k, f in enumerate(train.fingerprints) if f is not None]
    here = [k for k, f in enumerate(val.fingerprints) if f is not None and k not in known]
    if not there or not here:
        return []
    base = np.stack([f for f in train.fingerprints if f is not None])
    found: list[tuple[int, str]] = []
    for start in range(0, len(here), BLOCK):
        block = here[start : start + BLOCK]
        rows = np.stack([f for k in block if (f := val.fingerprints[k]) is not None])
        distances = ((base.shape[1] - rows @ base.T) / 2).round().astype(np.int64)  # [block, T]
        nearest = distances.argmin(axis=1)
        for k, j, bits in zip(block, nearest, distances.min(axis=1), strict=True):
            if bits <= MAX_DISTANCE:
                found.append((int(bits), f"{val.names[k]} ~ {train.names[there[j]]} ({bits} of 128 bits)"))
    return [text for _, text in sorted(found)]
