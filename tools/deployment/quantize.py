"""Bring an exported detector into 8 bits, and tell what that costs in AP, size and latency."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import origin_of
from src.deploy.comparison.conversion import Written, convert
from src.deploy.export.calibration import calibration_pictures
from src.deploy.export.quantization import KEPT_FLOAT, METHODS, quantize
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help="what export_onnx.py wrote, in float32")
    add("-r", "--resume", type=Path, help="the checkpoint of the model: PyTorch's rows in the table")
    add("-c", "--config", type=Path, help="YAML file of a checkpoint that holds none")
    add("-o", "--output", type=Path, help="the file (beside the model, its name with _int8)")
    add(
        "--data", type=Path, nargs="+", default=[], metavar="PATH",
        help="a dataset: its train calibrates, its val gives the AP; or IMAGES ANNOTATIONS for both",
    )  # fmt: skip
    add("--pictures", type=Path, metavar="FOLDER", help="calibrate on these pictures instead")
    add("--num-pictures", type=int, default=128, help="pictures to calibrate on (%(default)s)")
    add("--method", choices=METHODS, default="minmax", help="how ranges are found (%(default)s)")
    add("--signed", action="store_true", help="signed activations around zero, as TensorRT asks for")
    add(
        "--keep-float", nargs="+", default=[], metavar="MODULE",
        help="more modules to keep in float32, such as model.backbone.vit.blocks.3 (the decoder always is)",
    )  # fmt: skip
    add("--threads", type=int, help="threads of one call when timed (torch's choice)")
    add("--repeats", type=int, default=20, help="timed rounds (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Parse, quantise, measure, print."""
    args = parse()
    setup_logging(None)
    output = args.output or args.model.with_name(f"{args.model.stem}_int8.onnx")
    data = origin_of(args.data) if args.data else None
    pictures = calibration_pictures(args.data, args.pictures, args.num_pictures)
    kept_float = (*KEPT_FLOAT, *args.keep_float)

    def write(path: Path) -> Written:
        made = quantize(
            args.model, path, pictures, method=args.method, signed=args.signed, kept_float=kept_float
        )
        return Written(made.facts(), None)

    folder = None if data else args.pictures
    written, comparison = convert(
        args.model, output, write, data, folder=folder,
        checkpoint=args.resume, config=args.config, threads=args.threads, repeats=args.repeats,
    )  # fmt: skip
    facts = written.facts
    print(
        f"{output}: {facts['size_bytes'] / 1e6:.1f} MB, calibrated on {len(pictures)} pictures; "
        f"{facts['num_quantized']} layers with weights are in 8 bits, {facts['num_float']} in float32\n"
    )
    print(comparison.text())


if __name__ == "__main__":
    sys.exit(door.run(main))
