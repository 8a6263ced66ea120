"""Write COCO's JSON from a dataset: `python tools/dataset/convert.py data/mine train.json --split train`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.data.conversion import convert, refuse_existing, to_json  # noqa: E402 - the path comes first
from src.door import run  # noqa: E402 - same
from src.files import write_whole  # noqa: E402 - same


def main() -> None:
    """Parse, read, write, say what was written."""
    parser = argparse.ArgumentParser(
        description="Write one split of a dataset (COCO, Roboflow, YOLO, VOC) as COCO's JSON; pictures stay."
    )
    parser.add_argument("source", type=Path, help="the dataset's folder, or its data.yaml or JSON")
    parser.add_argument("destination", type=Path, help="JSON file to write")
    parser.add_argument("--split", help="train, val, test or all; needed where there are several")
    parser.add_argument("--img-folder", type=Path, help="folder that file names are written relative to")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    args = parser.parse_args()
    refuse_existing([args.destination], force=args.force)
    converted = convert(args.source, split=args.split, img_folder=args.img_folder)
    write_whole(args.destination, to_json(converted.document))
    counts = {key: len(converted.document[key]) for key in ("images", "annotations", "categories")}
    print(
        f"{args.destination}: {counts['images']} pictures, {counts['annotations']} boxes, "
        f"{counts['categories']} classes from {converted.format}; img_folder is {converted.img_folder}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
