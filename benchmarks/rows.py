"""What a benchmark reports: the machine, and rows of one table, each with its aim and how it was measured."""

import json
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from src.deploy.comparison.machine import this_machine

PACKAGES = (
    "torchvision",
    "timm",
    "transformers",
    "onnxruntime",
    "openvino",
    "pycocotools",
    "faster-coco-eval",
)
HEAD = "| work | against | aim | reached | medians | measured with |\n|---|---|---|---|---|---|"


class Row(NamedTuple):
    """One figure.

    Attributes:
        work: What is done.
        against: What it is compared with; "" where the figure stands for itself.
        reached: The figure: how many times as fast or as small, or an amount.
        unit: "x" for times, or the amount's.
        aim: What it should be at least, or at most; None: no aim.
        at_most: Which of the two.
        medians: Seconds of the work and of what it is compared with, where time was measured.
        rounds: Measured rounds; 1 where counting again gives the same.
        threads: Threads of a call, None where nothing was timed.
        clock: "cpu", the processor's seconds, or "wall", or "" where nothing was timed.
    """

    work: str
    against: str
    reached: float
    unit: str = "x"
    aim: float | None = None
    at_most: bool = False
    medians: Sequence[float] = ()
    rounds: int = 1
    threads: int | None = None
    clock: str = ""

    def line(self) -> str:
        """The row in Markdown; what misses its aim is bold."""
        found, aim = _amount(self.reached, self.unit), ""
        if self.aim is not None:
            aim = f"at {'most' if self.at_most else 'least'} {_amount(self.aim, self.unit)}"
            if (self.reached > self.aim) if self.at_most else (self.reached < self.aim):
                found = f"**{found}**"
        medians = ", ".join(f"{1e3 * seconds:,.{1 if seconds < 0.1 else 0}f} ms" for seconds in self.medians)
        with_what = ""
        if self.threads is not None:
            threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
            with_what = f"{threads}, {self.clock} clock, {self.rounds} round{'' if self.rounds == 1 else 's'}"
        return f"| {self.work} | {self.against} | {aim} | {found} | {medians} | {with_what} |"


def _amount(number: float, unit: str) -> str:
    digits = 0 if number >= 100 or isinstance(number, int) else 1 if number >= 10 else 2
    return f"{number:,.{digits}f}{unit}" if unit == "x" else f"{number:,.{digits}f} {unit}"


def table(rows: Iterable[Row]) -> str:
    """All rows in Markdown."""
    return "\n".join((HEAD, *(row.line() for row in rows)))


def machine() -> dict[str, str]:
    """Processor, cores, load and versions; threads stand in each row."""
    found = this_machine(torch.device("cpu"))
    load = "unknown" if found.load is None else f"{found.load:.1f}"
    described = {"cpu": found.cpu, "cores": str(found.cores), "load at the start": load}
    described |= {"Python": found.python, "torch": found.torch}
    for package in PACKAGES:
        try:
            described[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            described[package] = "not installed"
    return described


def machine_line(described: dict[str, str]) -> str:
    """The same as one line of text."""
    return ", ".join(value if name == "cpu" else f"{name} {value}" for name, value in described.items())


def report(described: dict[str, str], rows: Sequence[Row], path: Path | None, **details: Any) -> None:
    """Print the table, and write machine, rows and `details` to `path` as JSON."""
    if rows:
        print(f"\n{table(rows)}")
    if path is not None:
        found = {"machine": described, "rows": [row._asdict() for row in rows], **details}
        path.write_text(json.dumps(found, indent=2) + "\n")
