"""A file in another form, measured beside the file that it is made from before it takes its place."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ...data import Origin
from ...files import staged_folder
from .file_table import FileComparison
from .files import check_timing, compare_files

SEEN_FROM = 0.3  # score


class Converted(NamedTuple):
    """What was written, and what it costs.

    Attributes:
        facts: How it was made, in plain values.
        comparison: The source and the file side by side.
    """

    facts: dict[str, Any]
    comparison: FileComparison


def convert(
    source: Path,
    path: Path,
    write: Callable[[Path], dict[str, Any]],
    data: Origin | None,
    *,
    folder: Path | None = None,
    threads: int | None = None,
    repeats: int = 20,
) -> Converted:
    """Write a file from another, compare the two, and put the file in its place with a JSON of all that.

    Args:
        source: What it is made from.
        path: The file; with it comes `NAME.json`, or neither does.
        write: Writes the file where it is told to, and gives the facts of how.
        data: Pictures with objects for the AP; None: no AP.
        folder: Pictures to compare detections on, None for the first of `data`.
        threads: Threads of one call when timed; None for torch's choice.
        repeats: Measured rounds.

    Raises:
        ValueError: An option is out of range, the dataset is faulty, the file would take its source's place,
            or a file cannot be used or written.
    """
    check_timing(threads, repeats)
    if path.resolve() == source.resolve():
        raise ValueError(f"{path}: is the source; name another file with -o")
    with staged_folder(path.parent) as stage:
        staged = stage / path.name
        facts = write(staged)
        comparison = compare_files(
            [source, staged], data=data, folder=folder, threads=threads, repeats=repeats, threshold=SEEN_FROM
        )
        report = {
            "file": path.name,
            "sha256": hashlib.sha256(staged.read_bytes()).hexdigest(),
            "source": source.name,
            "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            **facts,
            **comparison.to_dict(),
        }
        text = json.dumps(report, indent=2) + "\n"
        (stage / f"{path.name}.json").write_text(text, encoding="utf-8")
    return Converted(facts, comparison)
