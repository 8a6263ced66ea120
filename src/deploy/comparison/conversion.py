"""A file in another form, measured beside the file that it is made from before it takes its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ...data import Origin
from ...files import staged_folder
from ..export.report import digest, read_report, stage_report
from ..export.verify import Evidence, check_ap
from .file_table import FileComparison
from .files import check_timing, compare_files

SEEN_FROM = 0.3  # score


class Written(NamedTuple):
    """What a writer tells of its file.

    Attributes:
        facts: How it was made, in plain values.
        evidence: That it finds the same, and how far its AP may be off; None where rounding costs what it
            costs.
    """

    facts: dict[str, Any]
    evidence: Evidence | None


class Converted(NamedTuple):
    """What was written, and what it costs.

    Attributes:
        written: What its writer tells.
        comparison: The source and the file side by side, after the checkpoint if one was named.
    """

    written: Written
    comparison: FileComparison


def convert(
    source: Path,
    path: Path,
    write: Callable[[Path], Written],
    data: Origin | None,
    *,
    checkpoint: Path | None = None,
    config: Path | None = None,
    folder: Path | None = None,
    threads: int | None = None,
    repeats: int = 20,
) -> Converted:
    """Write a file from another, compare the two, and put it in its place with all that in `export.json`.

    Args:
        source: What it is made from.
        path: The file; with it comes its entry in the report of its folder, or neither does.
        write: Writes the file where it is told to.
        data: Pictures with objects for the AP; None: no AP.
        checkpoint: What the source was exported from: PyTorch's rows, which all others are compared with.
        config: The YAML file of a checkpoint that holds none.
        folder: Pictures to compare detections on, None for the first of `data`.
        threads: Threads of one call when timed; None for torch's choice.
        repeats: Measured rounds.

    Raises:
        ValueError: An option is out of range, the dataset is faulty, the file would take its source's place,
            a file cannot be used or written, an `export.json` of another origin is there, or the AP differs
            from the first row's by more than the evidence allows.
    """
    check_timing(threads, repeats)
    if config is not None and checkpoint is None:
        raise ValueError(f"{config}: is the config of no checkpoint; name that with -r, or leave out -c")
    if path.resolve() == source.resolve():
        raise ValueError(f"{path}: is the source; name another file with -o")
    read_report(path.parent)  # a faulty one is told before any work
    files = [source] if checkpoint is None else [checkpoint, source]
    with staged_folder(path.parent) as stage:
        staged = stage / path.name
        written = write(staged)
        comparison = compare_files(
            [*files, staged],
            config=config, data=data, folder=folder, threads=threads, repeats=repeats, threshold=SEEN_FROM,
        ).renamed(staged, path)  # fmt: skip
        first, last = comparison.entries[0], comparison.entries[-1]
        if written.evidence is not None and data is not None and first.metrics and last.metrics:
            expected, tolerance = first.metrics["AP"], written.evidence.tolerance
            check_ap(last.label, last.metrics["AP"], first.label, expected, data, tolerance)
        entry = {
            "source": source.name,
            "source_sha256": digest(source),
            **written.facts,
            "verified": None if written.evidence is None else written.evidence.to_dict(),
            **comparison.to_dict(),
        }
        stage_report(stage, path.parent, path.name, entry)
    return Converted(written, comparison)
