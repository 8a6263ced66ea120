"""Photograph the service's page: how docs/images/serving_page.png is made."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from page_cases import serving
from webdriver import Browser, browser

from src import door
from src.deploy import Detector
from src.serving import Limits


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help="file that `Detector.load` takes")
    add("-i", "--pictures", type=Path, nargs="+", required=True, help="what to drop on the page")
    add("-o", "--output", type=Path, required=True, help="PNG to write")
    add("--name", default="detector", help="what the page calls the model (%(default)s)")
    add("--size", type=int, nargs=2, default=(1120, 760), metavar=("WIDTH", "HEIGHT"), help="of the window")
    add("--scheme", choices=("light", "dark"), default="light", help="(%(default)s)")
    return parser.parse_args()


def photograph(page: Browser, address: str, args: argparse.Namespace) -> None:
    """Open the page, give it the pictures, and save what is to be seen."""
    width, height = args.size
    page.tell(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    features = [{"name": "prefers-color-scheme", "value": args.scheme}]
    page.tell("Emulation.setEmulatedMedia", features=features)
    page.open(address)
    page.send_keys("#files", "\n".join(str(path.resolve()) for path in args.pictures))
    answered = "document.querySelectorAll('[data-status=done], [data-status=failed]').length"
    page.wait(f"{answered} === {len(args.pictures)}")
    page.wait("[...document.images].every(image => image.complete)")
    page.screenshot().save(args.output, optimize=True)


def main() -> None:
    """Parse, serve, photograph."""
    args = parse()
    runtime = Detector.load(args.model).runtime
    with (
        serving(runtime, args.name, Limits()) as address,
        tempfile.TemporaryDirectory() as profile,
        browser(Path(profile)) as page,
    ):
        photograph(page, address, args)


if __name__ == "__main__":
    sys.exit(door.run(main))
