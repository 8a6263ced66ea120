"""What a comparison of a detector's files says: one table, and the same as plain values."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..agreement import Agreement, Tolerance
from ..table import markdown, table
from .machine import Machine
from .timing import Timing


class Entry(NamedTuple):
    """What was measured of one form of the detector.

    Attributes:
        label: Its file's name, and of a checkpoint which of its two forms, or in what it calculates.
        runtime: What ran it.
        path: Its file.
        size_bytes: What it takes on the disk; a checkpoint may hold what training needs, too.
        timing: Calls with one picture.
        metrics: COCO's 12 numbers in [0, 1] by name (-1: nothing to find); None without data.
        agreement: With the first form; None for that one, and without pictures.
    """

    label: str
    runtime: str
    path: Path
    size_bytes: int
    timing: Timing
    metrics: dict[str, float] | None
    agreement: Agreement | None


@dataclass(frozen=True)
class FileComparison:
    """Forms of a detector, measured in one run.

    Attributes:
        machine: What they ran on.
        tolerance: Within which detections agree.
        entries: One for each form.
    """

    machine: Machine
    tolerance: Tolerance
    entries: tuple[Entry, ...]

    def renamed(self, path: Path, name: Path) -> "FileComparison":
        """The same with a file under the name that it gets."""
        entries = (
            one._replace(label=one.label.replace(str(path), str(name)), path=name)
            if one.path == path
            else one
            for one in self.entries
        )
        return replace(self, entries=tuple(entries))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes; times in milliseconds."""
        return {
            "machine": self.machine._asdict(),
            "tolerance": {"score": self.tolerance.score, "box_px": self.tolerance.box_px},
            "threshold": self.tolerance.floor,
            "files": [self._entry_dict(one) for one in self.entries],
        }

    def _entry_dict(self, entry: Entry) -> dict[str, Any]:
        agreement = entry.agreement
        return {
            "label": entry.label,
            "runtime": entry.runtime,
            "path": str(entry.path),
            "size_bytes": entry.size_bytes,
            "batch_1_ms": entry.timing.milliseconds(),
            "ratio": self._ratio(entry),
            "metrics": entry.metrics,
            "agreement": None if agreement is None else {**agreement._asdict(), "share": agreement.share},
        }

    def text(self, *, as_markdown: bool = False) -> str:
        """The machine, then a row for each form."""
        head = ["file", "run by", "MB", "ms, batch 1", "quartiles", "ratio"]
        scored = any(one.metrics is not None for one in self.entries)
        compared = [one.agreement for one in self.entries if one.agreement is not None]
        rows = [head + ["AP", "AP50"] * scored + ["agree, %", "score", "box, px"] * bool(compared)]
        rows += [self._row(one, scored, bool(compared)) for one in self.entries]
        about = (
            f"One picture a call, median of {self.entries[0].timing.num_calls} rounds over all files in turn."
        )
        if compared:
            least = f" of a score from {self.tolerance.floor:g} on" * bool(self.tolerance.floor)
            about += (
                f"\nDetections{least} in {compared[0].batch} pictures: how many are within "
                f"{self.tolerance.score:g} in score and {self.tolerance.box_px:g} px of the first row's, and "
                "the largest differences."
            )
        lines = markdown(rows, LEFT_ALIGNED) if as_markdown else table(rows, LEFT_ALIGNED)
        return "\n".join([self.machine.line(), about, "", *lines])

    def _ratio(self, entry: Entry) -> float:
        return entry.timing.median / self.entries[0].timing.median

    def _row(self, entry: Entry, scored: bool, compared: bool) -> list[str]:
        timing, agreement = entry.timing, entry.agreement
        cells = [
            entry.label,
            entry.runtime,
            f"{entry.size_bytes / 1e6:.1f}",
            f"{1e3 * timing.median:.1f}",
            f"{1e3 * timing.lower:.1f}-{1e3 * timing.upper:.1f}",
            f"{self._ratio(entry):.2f}",
        ]
        if scored:
            metrics = entry.metrics or {}
            values = [metrics.get(name, -1) for name in ("AP", "AP50")]
            cells += ["-" if value < 0 else f"{100 * value:.2f}" for value in values]
        if compared and agreement is None:
            cells += ["", "", ""]
        elif agreement is not None:
            any_compared = agreement.num_compared + agreement.num_apart > 0
            share = f"{100 * agreement.share:.1f}" if any_compared else "-"
            cells += [share, f"{agreement.max_score_diff:.2g}", f"{agreement.max_box_diff_px:.2g}"]
        return cells


LEFT_ALIGNED = (0, 1)  # file and runtime
