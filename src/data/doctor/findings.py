"""Findings of a dataset: counted, with examples."""

from collections.abc import Sequence
from typing import NamedTuple

from .rules import RULES, Severity

MAX_EXAMPLES = 5
MAX_EXAMPLE_LENGTH = 300


class Finding(NamedTuple):
    """One kind of finding in one file or set.

    Attributes:
        code: A name of `RULES`.
        severity: That of the rule, but `repaired` for boxes that the user allows to be left out.
        where: The file or set that it was found in.
        times: How often.
        examples: The first few, each with its place.
    """

    code: str
    severity: Severity
    where: str
    times: int
    examples: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """What to do about it, or what was done."""
        rule = RULES[self.code]
        return rule.remedy if self.severity == rule.severity else "left out, as drop_empty_boxes asks"

    def sentence(self) -> str:
        """What was found and what to do, in one line."""
        number = f"{self.times} " if self.times > 1 else ""
        shown = ", ".join(self.examples)
        more = f" and {self.times - len(self.examples)} more" if self.times > len(self.examples) else ""
        text = f"{number}{RULES[self.code].meaning}: {shown}{more}; {self.remedy}"
        return f"{self.where}: {text} [{self.code}]"


class Findings:
    """Collects what is found in one file or set.

    Args:
        where: Its name, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._found: dict[str, Finding] = {}

    def add(self, code: str, examples: Sequence[object], *, severity: Severity | None = None) -> None:
        """Note these occurrences; none is no finding. A second call for the same code counts on."""
        if not examples:
            return
        earlier = self._found.get(code)
        times = len(examples) + (earlier.times if earlier else 0)
        kept = (*(earlier.examples if earlier else ()), *(_short(e) for e in examples[:MAX_EXAMPLES]))
        self._found[code] = Finding(
            code, severity or RULES[code].severity, self.where, times, kept[:MAX_EXAMPLES]
        )

    def all(self) -> tuple[Finding, ...]:
        """The findings, errors first."""
        order = ("error", "repaired", "warning")
        return tuple(sorted(self._found.values(), key=lambda f: order.index(f.severity)))

    @property
    def has_error(self) -> bool:
        """Whether anything found stops a run."""
        return any(finding.severity == "error" for finding in self._found.values())

    def refuse(self) -> None:
        """Stop where there is an error.

        Raises:
            ValueError: All errors, one sentence each, in one line.
        """
        errors = [finding.sentence() for finding in self.all() if finding.severity == "error"]
        if errors:
            raise ValueError("annotation file " + "; and ".join(errors))


def _short(example: object) -> str:
    """An example as one line of bounded length, printable whatever it holds."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(example)[: MAX_EXAMPLE_LENGTH + 1])
    return text if len(text) <= MAX_EXAMPLE_LENGTH else text[: MAX_EXAMPLE_LENGTH - 3] + "..."


def told(value: object) -> str:
    """A JSON value as an example shows it."""
    try:
        return _short(repr(value))
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
