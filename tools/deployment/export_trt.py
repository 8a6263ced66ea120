"""Build a TensorRT engine from an exported ONNX file with trtexec. Nobody has run it with TensorRT yet."""

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy.export.tensorrt_engine import TRTEXEC, build_engine, read_graph, trtexec_command


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "-m", "--onnx", type=Path, required=True, help="what export_onnx.py wrote; its types are the engine's"
    )
    add("-o", "--output", type=Path, help="the engine (beside the ONNX file, .engine)")
    add("--batch", type=int, nargs=3, metavar=("MIN", "OPT", "MAX"), help="pictures per call (1 1 8)")
    add("--timing-cache", type=Path, metavar="FILE", help="keep TensorRT's measurements for the next build")
    add("--allow-grid-sample", action="store_true", help="take a graph that TensorRT may compute wrongly")
    add("--trtexec", default=TRTEXEC, metavar="PROGRAM", help="TensorRT's builder (%(default)s)")
    add("--dry-run", action="store_true", help="print the command and stop")
    add("extra", nargs="*", help="after --: further arguments of trtexec, say -- --noTF32 --verbose")
    return parser.parse_args()


def main() -> None:
    """Parse, say what is built, build."""
    args = parse()
    output = args.output or args.onnx.with_suffix(".engine")
    graph = read_graph(args.onnx)
    command = trtexec_command(
        args.onnx,
        graph,
        output,
        batches=tuple(args.batch) if args.batch else None,
        timing_cache=args.timing_cache,
        allow_grid_sample=args.allow_grid_sample,
        trtexec=args.trtexec,
        extra=args.extra,
    )
    weights = ", ".join(f"{count:,} {kind}" for kind, count in graph.numbers.items())
    print(f"weights, and with them the engine's types: {weights}")
    print(shlex.join(command), flush=True)
    if args.dry_run:
        return
    build_engine(command, output)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB; compare it with the ONNX file before you use it")


if __name__ == "__main__":
    sys.exit(door.run(main))
