"""Make the demo's dataset: `python tools/dataset/make_demo_dataset.py --output dataset/demo`."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.data.synthetic import DemoSettings, write_demo_dataset  # noqa: E402 - the path comes first
from src.door import run  # noqa: E402 - same


def main() -> None:
    """Parse, write, say what was written."""
    defaults = DemoSettings()
    parser = argparse.ArgumentParser(
        description="Write a small dataset of textured shapes (COCO JSON, JPEG)."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--train", type=int, default=defaults.num_train, help="pictures to train on")
    parser.add_argument("--val", type=int, default=defaults.num_val, help="pictures held out")
    parser.add_argument("--size", type=int, default=defaults.size, help="typical side in pixels")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of everything drawn")
    args = parser.parse_args()
    start = time.perf_counter()
    settings = DemoSettings(args.train, args.val, args.size, args.seed)
    if write_demo_dataset(args.output, settings):
        seconds = time.perf_counter() - start
        print(f"{args.output}: {args.train} + {args.val} pictures written in {seconds:.1f} s")
    else:
        print(f"{args.output}: these pictures are there already")


if __name__ == "__main__":
    sys.exit(run(main))
