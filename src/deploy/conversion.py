"""What a file in another form costs: measured beside the file that it was made from, and kept beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..data import Origin
from ..files import write_whole
from .compare_files import compare_files
from .file_comparison import FileComparison

SEEN_FROM = 0.3  # score


def report_conversion(
    source: Path,
    path: Path,
    facts: dict[str, Any],
    data: Origin | None,
    *,
    threads: int | None = None,
    repeats: int = 20,
) -> FileComparison:
    """Compare a converted file with its source, and write what came out as JSON beside it.

    Args:
        source: What it was made from.
        path: The file.
        facts: How it was made.
        data: Pictures with objects for the AP; None: no AP.
        threads: Threads of one call; None for torch's choice.
        repeats: Measured rounds.

    Raises:
        ValueError: An option is out of range, the dataset is faulty, or a file cannot be used or written.
    """
    comparison = compare_files(
        [source, path], data=data, threads=threads, repeats=repeats, threshold=SEEN_FROM
    )
    report = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        **facts,
        **comparison.to_dict(),
    }
    write_whole(path.with_name(f"{path.name}.json"), (json.dumps(report, indent=2) + "\n").encode())
    return comparison
