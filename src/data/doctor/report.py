"""What the doctor says: a table for people, JSON for programs."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Report":
        """The report whose `as_json` is this.

        Raises:
            KeyError, TypeError, ValueError: It is that of no report.
        """
        findings = (
            Finding(f["code"], f["severity"], f["where"], f["count"], tuple(f["examples"]))
            for f in kept["findings"]
            if f["code"] in RULES
        )
        return cls(tuple(Examined(**examined) for examined in kept["sets"]), tuple(findings))

    def short(self) -> str:
        """A line for each finding, for a log."""
        return "\n".join(_columns(self._rows(), num_lines=1))

    def table(self) -> str:
        """What was looked at, a row for each finding, and under the table what each of them means."""
        lines = [
            f"{s.name}: {s.file}: {s.pictures} pictures, {s.boxes} boxes, {s.classes} classes"
            for s in self.sets
        ]
        if not self.findings:
            return "\n".join([*lines, "no finding"])
        meanings = dict.fromkeys(f"{f.code}: {RULES[f.code].meaning}; {f.remedy}" for f in self.findings)
        return "\n".join([*lines, "", *_columns(self._rows()), "", *meanings])

    def _rows(self) -> list[tuple[str, ...]]:
        files = [examined.file for examined in self.sets]
        names = {s.file: s.name for s in self.sets if files.count(s.file) == 1}
        return [
            HEADINGS,
            *(
                (f.severity, f.code, str(f.times), names.get(f.where, f.where), ", ".join(f.examples))
                for f in self.findings
            ),
        ]


def _columns(rows: Sequence[Sequence[str]], num_lines: int | None = None) -> list[str]:
    """Lines of aligned columns; the last column is wrapped at the table's width."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADINGS) - 1)]
    indent = sum(widths) + 2 * len(widths)
    left = max(40, WIDTH - indent)
    lines = []
    for row in rows:
        *cells, last = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        first, *more = textwrap.wrap(
            last, left, break_on_hyphens=False, max_lines=num_lines, placeholder=" ..."
        ) or [""]
        lines.append("  ".join([*cells, first]))
        lines += [" " * indent + text for text in more]
    return lines
