"""What a check found, and how it is told; knows the standard library alone."""

import json
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

Status = Literal["ok", "warn", "fail"]

NAME_WIDTH = 40


class Outcome(NamedTuple):
    """What a check found.

    Attributes:
        status: `warn` where something is missing that not every use needs, `fail` where something is wrong.
        told: What is the case.
        remedy: What to do about it, "" where nothing is to be done.
    """

    status: Status
    told: str
    remedy: str = ""


class Finding(NamedTuple):
    """An outcome, with the name of what was checked."""

    check: str
    status: Status
    told: str
    remedy: str

    def rows(self) -> str:
        """The finding as a row of the table, and one for the remedy."""
        margin = " " * (NAME_WIDTH + 6)
        told = self.told.replace("\n", f"\n{margin}")
        row = f"{self.status:<5} {self.check:<{NAME_WIDTH}}{told}"
        return f"{row}\n{margin}-> {self.remedy}" if self.remedy else row


def attempt(check: str, work: Callable[..., Outcome], *arguments: object) -> Finding:
    """The finding of `work(*arguments)`, or of the error that it ended with, of whatever kind."""
    try:
        return Finding(check, *work(*arguments))
    except ValueError as error:  # says itself what to do
        return Finding(check, "fail", str(error), "")
    except Exception as error:  # noqa: BLE001 - to tell of it is what a check is for
        remedy = "a fault of a library or of this program: please report it with this table"
        return Finding(check, "fail", f"{type(error).__name__}: {error}", remedy)


def tell(findings: Iterable[Finding], say: Callable[[str], None], *, as_json: bool) -> int:
    """Tell each finding as it comes, or all as one JSON object at the end.

    Returns:
        The exit status: 1 if a check failed, else 0.
    """
    told = []
    for finding in findings:
        told.append(finding)
        if not as_json:
            say(finding.rows())
    counts = {status: sum(finding.status == status for finding in told) for status in ("ok", "warn", "fail")}
    if as_json:
        checks = [finding._asdict() for finding in told]
        say(json.dumps({"ready": not counts["fail"], **counts, "checks": checks}, indent=2))
    else:
        say(f"\n{counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail")
    return 1 if counts["fail"] else 0
