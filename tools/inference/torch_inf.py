"""Detect in a picture or a folder with a config and a checkpoint: annotated pictures and detections.json."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import assembly, distributed, door
from src.deploy import Predictor, TorchRuntime, predict_folder
from src.deploy.lean import make_lean
from src.nn.deploy import to_deploy


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="YAML file of the experiment")
    parser.add_argument("-r", "--resume", type=Path, required=True, help="checkpoint")
    parser.add_argument("-i", "--input", type=Path, required=True, help="picture, or folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--threshold", type=float, default=0.4, help="least score of a detection (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="pictures at a time (%(default)s)")
    parser.add_argument("-d", "--device", default=None, help="cpu, cuda, cuda:1 ... (a GPU if there is one)")
    parser.add_argument("--compile", action="store_true", help="compile the model first, for many pictures")
    parser.add_argument(
        "-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change the config"
    )
    return parser.parse_args()


def main() -> None:
    """Parse, detect, say where the results are."""
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    device = distributed.start(args.device)
    model, postprocessor, classes, experiment = assembly.load_detector(
        args.config, args.resume, args.update, device
    )
    model = make_lean(to_deploy(model))
    size, padded = experiment.eval_spatial_size, experiment.keep_ratio
    runtime = TorchRuntime(
        model, postprocessor, classes, size, device, keep_ratio=padded, compiled=args.compile
    )
    predictor = Predictor(runtime, threshold=args.threshold, batch_size=args.batch_size)
    done = predict_folder(predictor, args.input, args.output)
    print(f"{done.num_pictures} pictures, {done.num_detections} detections: {done.output}")


if __name__ == "__main__":
    sys.exit(door.run(main))
