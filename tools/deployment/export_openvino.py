"""Write OpenVINO's files (.xml and .bin) of an exported detector, and check that they find the same."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import Detector, origin_of
from src.deploy.comparison.conversion import Written, convert
from src.deploy.export.openvino_ir import save_openvino
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help="what export_onnx.py or quantize.py wrote")
    add("-o", "--output", type=Path, help="the .xml file (beside the model, with its name)")
    add("-r", "--resume", type=Path, help="the checkpoint of the model: check against PyTorch itself")
    add("-c", "--config", type=Path, help="YAML file of a checkpoint that holds none")
    add("--fp16", action="store_true", help="keep weights in float16: half the size")
    add("--data", type=Path, nargs="+", metavar="PATH", help="check on IMAGES ANNOTATIONS, or a dataset")
    add("--threads", type=int, help="threads of one call when timed (torch's choice)")
    add("--repeats", type=int, default=20, help="timed rounds (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Parse, write, measure, print."""
    args = parse()
    setup_logging(None)
    output = args.output or args.model.with_suffix(".xml")
    data = origin_of(args.data) if args.data else None

    def write(path: Path) -> Written:
        reference = None
        if args.resume is not None:
            checkpoint = Detector.load(args.resume, config=args.config, device="cpu", as_trained=True)
            reference = checkpoint.runtime
        saved = save_openvino(args.model, path, half=args.fp16, pictures=data, reference=reference)
        facts = {"size_bytes": saved.size_bytes, "weights_in_float16": args.fp16}
        return Written(facts, saved.evidence)

    written, comparison = convert(
        args.model, output, write, data,
        checkpoint=args.resume, config=args.config, threads=args.threads, repeats=args.repeats,
    )  # fmt: skip
    facts, evidence = written
    print(f"{output} and {output.stem}.bin: {facts['size_bytes'] / 1e6:.1f} MB")
    print("runs; what 8 bits cost is measured, not checked" if evidence is None else evidence.text())
    print(f"\n{comparison.text()}")


if __name__ == "__main__":
    sys.exit(door.run(main))
