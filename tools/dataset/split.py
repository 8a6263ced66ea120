"""Hold out validation pictures: `python tools/dataset/split.py data/mine --val 0.2 --seed 0`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.data.conversion import refuse_existing, to_json  # noqa: E402 - the path comes first
from src.data.splitting import split  # noqa: E402 - same
from src.door import run  # noqa: E402 - same
from src.files import write_whole  # noqa: E402 - same


def main() -> None:
    """Parse, divide, write, say how to train on it."""
    parser = argparse.ArgumentParser(
        description="Divide a dataset in train and val, alike on every machine, as COCO JSONs; pictures stay."
    )
    parser.add_argument("source", type=Path, help="the dataset's folder, or its data.yaml or JSON")
    parser.add_argument(
        "--output", type=Path, help="folder of the two files; SOURCE/annotations if not given"
    )
    parser.add_argument("--val", type=float, default=0.2, help="share of the pictures to hold out")
    parser.add_argument("--seed", type=int, default=0, help="chooses among the many ways")
    parser.add_argument(
        "--group-by",
        default="none",
        help=r"keep together what belongs together: folder, or a regular expression, e.g. '^(.*)\.rf\.'",
    )
    parser.add_argument("--force", action="store_true", help="divide anew, and replace files that are there")
    args = parser.parse_args()
    halves = split(args.source, val=args.val, seed=args.seed, group_by=args.group_by, again=args.force)
    files = halves.files(args.output)
    train, val = files
    refuse_existing([train, val], force=args.force)
    write_whole(train, to_json(files[train]))
    write_whole(val, to_json(files[val]))
    print(halves.table())
    print(f"{train}\n{val}: file names are relative to {halves.root}")
    if args.output is None:
        print(f"train on it with -u data={halves.root}")


if __name__ == "__main__":
    sys.exit(run(main))
