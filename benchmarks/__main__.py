"""All benchmarks, one after another, in one table.

    python -m benchmarks [training inference data evaluation ...] [--json FILE]

Each is a process of its own, so that none warms another's memory; each can be run alone with settings of its
own: `python -m benchmarks.training --help`. What is compared with comes from requirements-dev.txt.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from src import door

from .rows import Row, machine, machine_line, table

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("training", "inference", "data", "evaluation")


def run(name: str, folder: Path) -> dict[str, Any]:
    """What one benchmark wrote; it prints its own table, or what it fails of, as it goes.

    Raises:
        SystemExit: It failed; with its status.
    """
    path = folder / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path)]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(status)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


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
    described = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: run(name, Path(folder)) for name in args.names or NAMES}
    rows = [Row(**row) for numbers in found.values() for row in numbers["rows"]]
    print(f"\n{machine_line(described)}\n\n{table(rows)}")
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": described, **found}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(door.run(main))
