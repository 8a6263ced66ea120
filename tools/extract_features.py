"""Save a DINOv3 teacher's features of pictures, those of a folder or a COCO file; go on where it stopped."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import distributed, door
from src.deploy.feature_extraction import extract_to_folder, list_pictures
from src.solver.logs import setup_logging
from src.teachers import build_teacher, read_knobs


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, default=Path("configs/teachers/dinov3.yaml"))
    parser.add_argument("--img-folder", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--ann-file", type=Path, help="COCO JSON: its pictures, called by their ids")
    parser.add_argument("-o", "--output", type=Path, help="folder for the features (feature_output_dir)")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 640), metavar=("H", "W"))
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures at a time (%(default)s)")
    parser.add_argument("--num-threads", type=int, default=4, help="that decode pictures (%(default)s)")
    parser.add_argument("--cls-only", action="store_true", help="the class token alone")
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 ... instead of the YAML's")
    parser.add_argument("-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change the YAML")
    return parser.parse_args()


def main() -> None:
    """Parse, extract, say what is where."""
    args = parse()
    knobs = read_knobs(args.config, args.update)
    if args.cls_only:
        knobs |= {"extract_cls_token": True, "extract_patch_tokens": False}
    output = args.output or knobs.get("feature_output_dir")
    if output is None:
        raise ValueError(
            f"no folder for the features: give -o FOLDER, or feature_output_dir in {args.config}"
        )
    device = distributed.start(args.device or knobs.get("device"))
    setup_logging(None)
    pictures = list_pictures(args.img_folder, args.ann_file, tuple(args.size))
    teacher = build_teacher({**knobs, "device": str(device)})
    done = extract_to_folder(
        teacher,
        pictures,
        Path(output),
        dtype=args.dtype,
        batch_size=args.batch_size,
        num_threads=args.num_threads,
    )
    if distributed.is_main():
        print(
            f"{done.num_pictures} pictures ({done.num_before} of them done before), "
            f"{' and '.join(teacher.get_feature_types())}, {done.num_bytes / 1e6:.1f} MB in {done.folder}"
        )
    distributed.stop()  # not after an error: it would wait for ranks that go on


if __name__ == "__main__":
    sys.exit(door.run(main))
