"""All benchmarks, one after another, in one table of ratios.

    python -m benchmarks [training inference data evaluation ...] [--json FILE]

Each is a process of its own, so that none warms another's memory; each can be run alone with settings of its
own: `python -m benchmarks.training --help`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from src.deploy.comparison.machine import this_machine

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("training", "inference", "data", "evaluation")


def run(name: str, folder: Path) -> dict[str, Any]:
    """What one benchmark wrote; it prints its own table as it goes.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    path = folder / f"{name}.json"
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(path)], cwd=ROOT, check=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def ratios(name: str, found: dict[str, Any]) -> list[tuple[str, float, float | None]]:
    """Work, how many times as fast or small as what it is compared with, and the aim where there is one."""
    if name in ("training", "inference"):
        rows = [row for part in found["runs"] for row in part["ratios"]]
        return [(row["work"], row["ratio"], row["aim"]) for row in rows]
    if name == "data":
        rows = found["pipelines"]
        kept = found["annotations"]
        speed = [(row["pipeline"], row["torchvision_ms"] / row["ours_ms"], None) for row in rows]
        return [*speed, ("annotations, memory", kept["dicts"]["bytes"] / kept["cache"]["bytes"], 50.0)]
    medians = {row["backend"]: sorted(row["seconds"])[len(row["seconds"]) // 2] for row in found["rows"]}
    return [
        (f"numpy against {other}", took / medians["numpy"], None)
        for other, took in medians.items()
        if other != "numpy"
    ]


def main() -> None:
    """Run, print one table, write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(NAMES))
    if unknown:
        parser.error(f"{', '.join(unknown)}: there is {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        found = {name: run(name, Path(folder)) for name in args.names or NAMES}
    machine = this_machine(torch.device("cpu"))
    print(f"\n{machine.line()}\n\n| work | times as fast | aim |\n|---|---|---|")
    for name, numbers in found.items():
        for work, ratio, aim in ratios(name, numbers):
            print(f"| {name}: {work} | {ratio:.2f} | {'' if aim is None else f'{aim:.2f}'} |")
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine._asdict(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
