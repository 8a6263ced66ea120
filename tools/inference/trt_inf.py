"""The place of D-FINE's TensorRT script, under its flags. It does not detect: see what it says."""

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door

REMEDY = (
    "This project does not run TensorRT engines: nobody has tried it with TensorRT yet. Run the ONNX file "
    "instead: tools/inference/onnx_inf.py --onnx MODEL.onnx -i PICTURES"
)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=f"{__doc__} {REMEDY}")
    parser.add_argument("-trt", "--trt", type=Path, required=True, help="TensorRT engine")
    parser.add_argument("-i", "--input", required=True, help="picture or video")
    parser.add_argument("-d", "--device", default="cuda:0", help="GPU (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Parse, and say why not."""
    args = parse()
    found = (
        "is installed" if importlib.util.find_spec("tensorrt") else "is needed for it and not installed here"
    )
    raise ValueError(f"{args.trt}: the package tensorrt {found}. {REMEDY}")


if __name__ == "__main__":
    sys.exit(door.run(main))
