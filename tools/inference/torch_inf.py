"""Detect with a config and a checkpoint: `predict.py` under the flags of D-FINE's own script."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import Detector, save_results
from src.deploy.detector import THRESHOLD
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-c", "--config", type=Path, required=True, help="YAML file of the experiment")
    add("-r", "--resume", type=Path, required=True, help="checkpoint")
    add("-i", "--input", required=True, help="picture, folder, 'pattern*.jpg', video, or a camera's number")
    add("-o", "--output", type=Path, default=Path("output/predictions"), help="folder (%(default)s)")
    add("--threshold", type=float, default=THRESHOLD, help="least score of a detection (%(default)s)")
    add("--batch-size", type=int, default=1, help="pictures at a time (%(default)s)")
    add("-d", "--device", help="cpu, cuda, cuda:1 ... (a GPU if there is one)")
    add("--compile", action="store_true", help="compile the model first, for many pictures")
    add("-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change the config")
    return parser.parse_args()


def main() -> None:
    """Parse, detect, say where the results are."""
    args = parse()
    setup_logging(None)
    detector = Detector.load(
        args.resume,
        config=args.config,
        overrides=args.update,
        device=args.device,
        compiled=args.compile,
    )
    done = save_results(
        detector, args.input, args.output, threshold=args.threshold, batch_size=args.batch_size
    )
    print(f"{done.num_pictures} pictures, {done.num_detections} detections: {done.output}")


if __name__ == "__main__":
    sys.exit(door.run(main))
