"""Download DINOv3's weights: timm's copies, or Meta's file by the link in its e-mail (--url)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import door
from src.setup.downloads import ALL, MODELS, download, next_step
from src.setup.licence import SUMMARY, require_acceptance
from src.solver.logs import setup_logging


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[*MODELS, ALL], help="giant2 is ViT-H+/16: DINOv3 has no giant")
    parser.add_argument("--url", metavar="'LINK'", help="a link that Meta mailed, between single quotes")
    parser.add_argument("--accept-license", action="store_true", help="accept the DINOv3 License")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("weights"), metavar="DIR", help="where to (%(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Parse, ask for the licence, download, say what to do next."""
    args = parse()
    setup_logging(None)
    require_acceptance(args.accept_license)
    print(SUMMARY)
    print(next_step(download(args.model, args.url, args.output_dir)))


if __name__ == "__main__":
    sys.exit(door.run(main))
