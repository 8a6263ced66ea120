"""Detect in pictures, videos or a camera with any trained or exported detector, and save what is found."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.deploy import Detector, save_results
from src.deploy.detector import OVERLAP, THRESHOLD
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help=".pth, .safetensors, .onnx, .xml, or their folder")
    add("-c", "--config", type=Path, help="YAML file, for a checkpoint that holds none")
    add("-i", "--input", required=True, help="picture, folder, 'pattern*.jpg', video, or a camera's number")
    add("-o", "--output", type=Path, default=Path("output/predictions"), help="folder (%(default)s)")
    add("--save", help="which of pictures,video,coco,csv (pictures or video, and coco)")
    add("--threshold", type=float, default=THRESHOLD, help="least score of a detection (%(default)s)")
    add("--batch-size", type=int, default=1, help="pictures at a time (%(default)s)")
    add("--slice", type=int, metavar="PIXELS", help="look at large pictures also in tiles of this side")
    add("--overlap", type=float, default=OVERLAP, help="share of a tile its neighbour sees (%(default)s)")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="bring pictures to this height and width")
    add("--frames", type=int, help="stop after so many")
    add("-d", "--device", help="where a checkpoint runs: cpu, cuda, cuda:1 ... (a GPU if there is one)")
    add("--threads", type=int, default=0, help="for exported files; 0: one for each core (%(default)s)")
    add("--bfloat16", action="store_true", help="for .xml files: faster, and less exact")
    add("--compile", action="store_true", help="compile a checkpoint's model first, for many pictures")
    add("-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change a checkpoint's config")
    return parser.parse_args()


def main() -> None:
    """Parse, detect, say where the results are."""
    args = parse()
    setup_logging(None)
    detector = Detector.load(
        args.model,
        config=args.config,
        overrides=args.update,
        device=args.device,
        num_threads=args.threads,
        compiled=args.compile,
        input_size=args.size and tuple(args.size),
        bfloat16=args.bfloat16,
    )
    done = save_results(
        detector,
        args.input,
        args.output,
        kinds=args.save.split(",") if args.save else None,
        threshold=args.threshold,
        batch_size=args.batch_size,
        slice_px=args.slice,
        overlap=args.overlap,
        max_frames=args.frames,
    )
    print(f"{done.num_pictures} pictures, {done.num_detections} detections: {done.output}")


if __name__ == "__main__":
    sys.exit(door.run(main))
