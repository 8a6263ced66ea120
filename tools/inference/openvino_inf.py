"""Detect in OpenVINO with an exported file: `predict.py` under the flags of D-FINE's own script."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import Detector, OpenVinoRuntime, save_results
from src.deploy.detector import THRESHOLD
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "-m",
        "--model",
        "-ov_model",
        "--ov_model",
        type=Path,
        dest="model",
        required=True,
        help=".xml or .onnx file",
    )
    add(
        "-i",
        "--input",
        "-image",
        "--image",
        dest="input",
        required=True,
        help="picture, folder, 'pattern*.jpg', video, or a camera's number",
    )
    add("-o", "--output", type=Path, default=Path("output/predictions"), help="folder (%(default)s)")
    add("--threshold", type=float, default=THRESHOLD, help="least score of a detection (%(default)s)")
    add("--batch-size", type=int, default=1, help="pictures at a time (%(default)s)")
    add("--threads", type=int, default=0, help="threads; 0: one for each core (%(default)s)")
    add("--bfloat16", action="store_true", help="calculate in bfloat16: faster, and less exact")
    return parser.parse_args()


def main() -> None:
    """Parse, detect, say where the results are."""
    args = parse()
    setup_logging(None)
    detector = Detector(OpenVinoRuntime(args.model, num_threads=args.threads, bfloat16=args.bfloat16))
    done = save_results(
        detector, args.input, args.output, threshold=args.threshold, batch_size=args.batch_size
    )
    print(f"{done.num_pictures} pictures, {done.num_detections} detections: {done.output}")


if __name__ == "__main__":
    sys.exit(door.run(main))
