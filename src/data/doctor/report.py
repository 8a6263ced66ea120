"""What the doctor says: a table for people, JSON for programs."""

import json
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from .findings import Finding
from .rules import RULES

WIDTH = 150  # characters of a line of the table
HEADINGS = ("severity", "finding", "count", "in", "examples")


class Examined(NamedTuple):
    """One set that was looked at.

    Attributes:
        name: `train`, `val` or another.
        file: Where its objects are written.
        pictures: How many it lists that can be used.
        boxes: How many there are to train on.
        classes: How many it has.
    """

    name: str
    file: str
    pictures: int
    boxes: int
    classes: int


class Report(NamedTuple):
    """What was looked at and what was found, errors first.

    Attributes:
        sets: The sets.
        findings: All of them.
    """

    sets: tuple[Examined, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def as_json(self) -> str:
        """The same as JSON, each finding with its meaning and remedy."""
        findings = [
            {
                "code": finding.code,
                "severity": finding.severity,
                "where": finding.where,
                "count": finding.times,
                "examples": list(finding.examples),
                "meaning": RULES[finding.code].meaning,
                "remedy": finding.remedy,
            }
            for finding in self.findings
        ]
        sets = [examined._asdict() for examined in self.sets]
        return json.dumps({"ok": not self.errors, "sets": sets, "findings": findings}, indent=2)

    def table(self) -> str:
        """What was looked at, a row for each finding, and under the table what each of them means."""
        lines = [
            f"{s.name}: {s.file}: {s.pictures} pictures, {s.boxes} boxes, {s.classes} classes"
            for s in self.sets
        ]
        if not self.findings:
            return "\n".join([*lines, "no finding"])
        rows = [
            (f.severity, f.code, str(f.times), self._short_where(f.where), ", ".join(f.examples))
            for f in self.findings
        ]
        meanings = dict.fromkeys(f"{f.code}: {RULES[f.code].meaning}; {f.remedy}" for f in self.findings)
        return "\n".join([*lines, "", *_columns([HEADINGS, *rows]), "", *meanings])

    def _short_where(self, where: str) -> str:
        """The set's name in place of its file."""
        return next((s.name for s in self.sets if s.file == where), where)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; the last column is wrapped at the table's width."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADINGS) - 1)]
    indent = sum(widths) + 2 * len(widths)
    left = max(40, WIDTH - indent)
    lines = []
    for row in rows:
        *cells, last = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        first, *more = textwrap.wrap(last, left, break_on_hyphens=False) or [""]
        lines.append("  ".join([*cells, first]))
        lines += [" " * indent + text for text in more]
    return lines
