"""Say what is wrong with a dataset before it is trained on: `python tools/dataset/doctor.py PATH`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.data.doctor import diagnose  # noqa: E402 - the path comes first
from src.door import run  # noqa: E402 - same


def main() -> None:
    """Parse, examine, say what was found; status 1 where something would stop a run."""
    parser = argparse.ArgumentParser(description="Examine a dataset. Nothing on disk is changed.")
    parser.add_argument("path", type=Path, help="a dataset's folder, its data.yaml, or a COCO JSON")
    parser.add_argument(
        "--img-folder", type=Path, help="the pictures of a COCO JSON; looked for if not named"
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    parser.add_argument(
        "--decode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode every picture, and compare the sets' pictures; otherwise only headers and ends are read",
    )
    args = parser.parse_args()
    report = diagnose(args.path, args.img_folder, decode=args.decode)
    print(report.as_json() if args.json else report.table())
    if report.errors:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(run(main))
