"""Detect in a picture or a folder with an exported ONNX file: annotated pictures and detections.json."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import OnnxRuntime, Predictor, predict_folder


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", type=Path, required=True, help="file that export_onnx.py wrote")
    parser.add_argument("-i", "--input", type=Path, required=True, help="picture, or folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--threshold", type=float, default=0.4, help="least score of a detection (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="pictures at a time (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0: one for each core (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Parse, detect, say where the results are."""
    args = parse()
    predictor = Predictor(
        OnnxRuntime(args.model, num_threads=args.threads),
        threshold=args.threshold,
        batch_size=args.batch_size,
    )
    done = predict_folder(predictor, args.input, args.output)
    print(f"{done.num_pictures} pictures, {done.num_detections} detections: {done.output}")


if __name__ == "__main__":
    sys.exit(door.run(main))
