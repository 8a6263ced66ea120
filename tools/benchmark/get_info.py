"""Print what a model costs: parameters by part (train and deploy) and GFLOPs at its evaluation size."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import door
from src.assembly import build_model, load
from src.deploy.comparison.model_info import describe
from src.nn.deploy import to_deploy


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="YAML file of the experiment")
    parser.add_argument(
        "-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change the config"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser.parse_args()


def main() -> None:
    """Parse, build, print."""
    args = parse()
    experiment = load(args.config, args.update)
    model = build_model(experiment)
    info = describe(model, to_deploy(model), experiment.eval_spatial_size)
    print(json.dumps(info.to_dict()) if args.json else f"{args.config}\n\n{info.table()}")


if __name__ == "__main__":
    sys.exit(door.run(main))
