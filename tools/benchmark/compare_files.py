"""Compare a detector's files in one run: size, latency, AP, and whether they find the same."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import origin_of
from src.deploy.comparison.files import compare_files
from src.files import write_whole
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-m", "--models", type=Path, nargs="+", required=True, metavar="FILE",
        help=".pth, .safetensors, .onnx and .xml files of one detector; ratios are to the first",
    )  # fmt: skip
    parser.add_argument("-c", "--config", type=Path, help="YAML file of a checkpoint that holds none")
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="PATH", help="IMAGES ANNOTATIONS, or a dataset, for the AP"
    )
    parser.add_argument("--pictures", type=Path, help="folder to compare detections on (the data's first 40)")
    parser.add_argument(
        "--threshold", type=float, default=0.0, help="compare detections of this score on (%(default)s)"
    )
    parser.add_argument("--bfloat16", action="store_true", help="measure .xml files in bfloat16, too")
    parser.add_argument("--threads", type=int, help="threads of one call (torch's choice)")
    parser.add_argument("--repeats", type=int, default=20, help="measured rounds (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def main() -> None:
    """Parse, measure, print."""
    args = parse()
    setup_logging(None)
    comparison = compare_files(
        args.models,
        config=args.config,
        data=args.data and origin_of(args.data),
        folder=args.pictures,
        threads=args.threads,
        repeats=args.repeats,
        threshold=args.threshold,
        bfloat16=args.bfloat16,
    )
    print(comparison.text(as_markdown=args.markdown))
    if args.json is not None:
        write_whole(args.json, (json.dumps(comparison.to_dict(), indent=2) + "\n").encode())


if __name__ == "__main__":
    sys.exit(door.run(main))
