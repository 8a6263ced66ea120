"""Say what a checkpoint holds (info), or write its weights for others (convert, hub)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import assembly, door
from src.deploy import Detector
from src.deploy.checkpoint_files import config_file, describe, write_portable, write_upstream
from src.deploy.hub import HUB_WEIGHTS


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="print what a checkpoint holds")
    info.add_argument("file", type=Path, help=".pth or .safetensors file")
    convert = commands.add_parser("convert", help="write a checkpoint's weights, EMA first, to another file")
    convert.add_argument("file", type=Path, help=".pth or .safetensors file")
    convert.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="OUT",
        help="OUT.safetensors, with OUT.json beside it, or with --upstream OUT.pth",
    )
    convert.add_argument("--upstream", action="store_true", help="in the format of D-FINE's own tools")
    convert.add_argument("-c", "--config", type=Path, help="for --upstream, where the file keeps no config")
    hub = commands.add_parser("hub", help="write a folder as the Hugging Face hub knows models; no upload")
    hub.add_argument("file", type=Path, help=".pth or .safetensors file")
    hub.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="its name is the model's")
    hub.add_argument("-c", "--config", type=Path, help="where the file keeps no config")
    hub.add_argument("--license", help="its owner's, as the hub calls it: apache-2.0, cc-by-4.0 ...")
    hub.add_argument("--license-file", type=Path, help="the licence's text, which is put into the folder")
    return parser.parse_args()


def main() -> None:
    """Parse, read, write, say what was written."""
    args = parse()
    if args.command == "info":
        print(describe(args.file))
        return
    if args.command == "hub":
        detector = Detector.load(args.file, config=args.config, device="cpu")
        detector.save_pretrained(args.to, license=args.license, license_file=args.license_file)
        print(describe(args.to / HUB_WEIGHTS))
        return
    if args.to.resolve() == args.file.resolve():
        raise ValueError(f"{args.to}: is the checkpoint itself; name another file with --to")
    if args.upstream:
        with config_file(args.file, args.config) as config:
            experiment = assembly.load(config)
        model = assembly.build_model(experiment)
        write_upstream(args.file, args.to, model, experiment.eval_spatial_size)
    else:
        write_portable(args.file, args.to)
    print(describe(args.to))


if __name__ == "__main__":
    sys.exit(door.run(main))
