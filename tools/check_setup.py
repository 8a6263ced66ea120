"""Check that this machine can train: packages, configs, weights, pictures, a training step, an export."""

import argparse
import functools
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.setup.findings import tell
from src.setup.packages import check_setup


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="check, train for a step and export these; without any, all of configs/dfine are checked",
    )
    parser.add_argument(
        "-u", "--update", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change them all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="with small pictures, and a small model to export"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    if args.update and not args.config:
        parser.error("-u changes configs that are named with -c")
    return args


def main() -> int:
    """Check and tell; the exit status is 1 if a check failed."""
    args = parse()
    root = Path(__file__).resolve().parents[1]
    findings = check_setup(root, args.config, args.update, quick=args.quick)
    return tell(findings, functools.partial(print, flush=True), as_json=args.json)


if __name__ == "__main__":
    try:  # not by door.run, which needs torch
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
