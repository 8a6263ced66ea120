"""Export a detector to one ONNX file, and check it against PyTorch in ONNX Runtime."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import assembly, door
from src.deploy import DeployModel, GraphOptions, ModelCard, export_verified, origin_of, samples_of
from src.nn.deploy import to_deploy
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="YAML file of the experiment")
    parser.add_argument(
        "-r", "--resume", type=Path, help="checkpoint; without one, random weights are exported"
    )
    parser.add_argument("-o", "--output", type=Path, help="ONNX file (beside the checkpoint, with its name)")
    parser.add_argument("--opset", type=int, default=18, help="ONNX operator set (%(default)s)")
    parser.add_argument("--batch-size", type=int, help="fix the pictures per call (any number)")
    parser.add_argument("--dynamic-size", action="store_true", help="take pictures of any height and width")
    parser.add_argument(
        "--sampling",
        choices=("gather", "bilinear"),
        default="gather",
        help="how attention reads between cells; bilinear writes GridSample nodes (%(default)s)",
    )
    parser.add_argument("--simplify", action="store_true", help="leave out what onnxslim finds needless")
    parser.add_argument("--fp16", action="store_true", help="compute in float16 where that is safe")
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="PATH", help="compare AP on IMAGES ANNOTATIONS, or a dataset"
    )
    parser.add_argument("--no-check", action="store_true", help="do not run the file to compare it")
    parser.add_argument(
        "-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change the config"
    )
    return parser.parse_args()


def main() -> None:
    """Parse, export, say what was written."""
    args = parse()
    setup_logging(None)
    model, postprocessor, classes, experiment = assembly.load_detector(args.config, args.resume, args.update)
    if args.resume is None:
        logging.warning("no checkpoint was named with -r: the exported weights are random")
    output = args.output or (args.resume or Path(args.config.name)).with_suffix(".onnx")
    data = args.data and origin_of(args.data)
    exported, evidence = export_verified(
        DeployModel(to_deploy(model, args.sampling), postprocessor).eval(),
        DeployModel(model, postprocessor).eval(),
        output,
        ModelCard(classes, experiment.eval_spatial_size, args.config.stem, experiment.keep_ratio),
        GraphOptions(args.opset, args.batch_size, args.dynamic_size, args.simplify, args.fp16),
        samples=None if args.no_check else samples_of(experiment, data),
        data=data,
        check=not args.no_check,
    )
    megabytes = exported.size_bytes / 1e6
    print(f"{exported.path}: {megabytes:.1f} MB, opset {exported.opset}, {exported.num_nodes} nodes")
    print("not compared with PyTorch" if evidence is None else evidence.text())


if __name__ == "__main__":
    sys.exit(door.run(main))
