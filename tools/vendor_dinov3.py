"""Clone Meta's DINOv3 code into a folder, for those who want it; nothing here needs it."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import door
from src.setup.licence import SUMMARY
from src.setup.vendoring import OFFICIAL, vendor


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo-url", default=OFFICIAL, metavar="URL", help="where from (%(default)s)")
    parser.add_argument(
        "--target-dir",
        type=Path,
        default=Path("third_party/dinov3"),
        metavar="DIR",
        help="where to (%(default)s, which git ignores)",
    )
    parser.add_argument("--ref", default="HEAD", help="branch, tag or whole commit id (the default branch)")
    parser.add_argument("--force", action="store_true", help="replace an earlier clone, changes included")
    return parser.parse_args()


def main() -> None:
    """Parse, clone, say what is there and under which licence."""
    args = parse()
    commit = vendor(args.repo_url, args.target_dir, ref=args.ref, force=args.force)
    print(f"{args.target_dir}: commit {commit} of {args.repo_url}\n\n{SUMMARY}")


if __name__ == "__main__":
    sys.exit(door.run(main))
