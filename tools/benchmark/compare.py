"""Compare models in one run: parameters, GFLOPs, latency, throughput and AP in one table."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import distributed, door
from src.deploy.comparison.models import Data, compare_models
from src.files import write_whole
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path, nargs="+", metavar="YAML", help="files of experiments")
    parser.add_argument(
        "-r", "--resume", type=Path, nargs="+", default=[], metavar="CKPT",
        help="checkpoints, one for each config in their order (random weights)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, nargs=2, metavar=("IMG_FOLDER", "ANN_JSON"), help="pictures to find the AP on"
    )
    parser.add_argument("-d", "--device", default=None, help="cpu, cuda, cuda:1 ... (a GPU if there is one)")
    parser.add_argument("--onnx", action="store_true", help="time ONNX Runtime too (on the CPU)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input size of all (each config's own)"
    )
    parser.add_argument("--repeats", type=int, default=20, help="measured rounds (%(default)s)")
    parser.add_argument("--threads", type=int, help="threads of one call on the CPU (torch's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument(
        "-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change every config"
    )
    return parser.parse_args()


def main() -> None:
    """Parse, measure, print."""
    args = parse()
    setup_logging(None)
    comparison = compare_models(
        args.configs,
        args.resume,
        distributed.choose_device(args.device),
        overrides=args.update,
        size_hw=args.size and (args.size[0], args.size[1]),
        data=args.data and Data(*args.data),
        onnx=args.onnx,
        repeats=args.repeats,
        threads=args.threads,
    )
    print(comparison.table())
    if args.json is not None:
        write_whole(args.json, (json.dumps(comparison.to_dict(), indent=2) + "\n").encode())


if __name__ == "__main__":
    sys.exit(door.run(main))
