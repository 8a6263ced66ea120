"""The last lines of `make demo`: what the detector reached, how long it took, where everything is."""

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src import door  # noqa: E402 - found through the path above


def main() -> None:
    """Print the table for the demo's output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of the demo")
    parser.add_argument("--started", type=Path, required=True, help="file that was touched as the demo began")
    args = parser.parse_args()
    missing = [f for f in (args.folder / "eval.json", args.started) if not f.exists()]
    if missing:
        raise ValueError(f"{missing[0]} is missing: the demo did not run to its end; run `make demo` again")
    metrics = json.loads((args.folder / "eval.json").read_text())
    rows = {
        "AP (COCO, IoU 0.50:0.95)": f"{metrics['AP']:.3f}",
        "AP50": f"{metrics['AP50']:.3f}",
        "seconds, all steps": f"{time.time() - args.started.stat().st_mtime:.0f}",
        "checkpoint": args.folder / "best.pth",
        "ONNX model": args.folder / "model.onnx",
        "annotated pictures": args.folder / "pictures",
        "report to look at": args.folder / "report.html",
        "numbers by class": args.folder / "eval.json",
    }
    width = max(map(len, rows))
    print("\n".join(["", *(f"{name.ljust(width)}  {value}" for name, value in rows.items())]))


if __name__ == "__main__":
    sys.exit(door.run(main))
