"""Write OpenVINO's files (.xml and .bin) of an exported detector, and compare them with it."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import origin_of
from src.deploy.comparison.conversion import convert
from src.deploy.export.openvino_ir import save_openvino
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help="what export_onnx.py or quantize.py wrote")
    add("-o", "--output", type=Path, help="the .xml file (beside the model, with its name)")
    add("--fp16", action="store_true", help="keep weights in float16: half the size")
    add("--data", type=Path, nargs="+", metavar="PATH", help="IMAGES ANNOTATIONS, or a dataset, for the AP")
    add("--threads", type=int, help="threads of one call when timed (torch's choice)")
    add("--repeats", type=int, default=20, help="timed rounds (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Parse, write, measure, print."""
    args = parse()
    setup_logging(None)
    output = args.output or args.model.with_suffix(".xml")
    data = origin_of(args.data) if args.data else None

    def write(path: Path) -> dict[str, Any]:
        saved = save_openvino(args.model, path, half=args.fp16)
        return {"size_bytes": saved.size_bytes, "weights_in_float16": args.fp16}

    facts, comparison = convert(args.model, output, write, data, threads=args.threads, repeats=args.repeats)
    print(f"{output} and {output.stem}.bin: {facts['size_bytes'] / 1e6:.1f} MB\n")
    print(comparison.text())


if __name__ == "__main__":
    sys.exit(door.run(main))
