"""Write a grid of training pictures as the model gets them in an epoch, with their boxes and class names."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from src import assembly, door
from src.solver.preview import preview


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="YAML file of the experiment")
    parser.add_argument("--epoch", type=int, default=0, help="whose draws and stage to show (%(default)s)")
    parser.add_argument("--num", type=int, default=16, help="pictures, the epoch's first (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument(
        "-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change the config"
    )
    return parser.parse_args()


def main() -> None:
    """Parse, load one batch, draw, say what is seen."""
    args = parse()
    # what a picture looks like depends neither on its batch nor on the process that loads it
    batch = [f"train_dataloader.total_batch_size={args.num}", "train_dataloader.drop_last=False"]
    experiment = assembly.load(args.config, [*args.update, *batch, "train_dataloader.num_workers=0"])
    model = assembly.build_model(experiment)
    loader = assembly.build_loader(experiment, torch.device("cpu"), model)
    picture, augmentation = preview(experiment, model, loader, args.epoch)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(args.out, "PNG")
    print(f"{args.out}: {args.num} pictures of epoch {args.epoch}, augmentation {augmentation}")


if __name__ == "__main__":
    sys.exit(door.run(main))
