"""Serve a trained or exported detector over HTTP, with a page to try it."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from src import door
from src.deploy import Detector
from src.deploy.extras import require
from src.solver.logs import setup_logging

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def parse(limits: tuple[float, ...]) -> argparse.Namespace:
    """The command line; `limits` are the defaults of `Limits`."""
    upload, pixels, pictures, waiting, timeout = limits
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help=".pth, .safetensors, .onnx, .xml, or their folder")
    add("-c", "--config", type=Path, help="YAML file, for a checkpoint that holds none")
    add("-d", "--device", help="where a checkpoint runs: cpu, cuda, cuda:1 ... (a GPU if there is one)")
    add("--threads", type=int, default=0, help="for exported files; 0: one for each core (%(default)s)")
    add("--bfloat16", action="store_true", help="for .xml files: faster, and less exact")
    add("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine alone)")
    add("--port", type=int, default=8000, help="(%(default)s)")
    add("--token-file", type=Path, help="file with the token that requests must carry; else $DFINE_TOKEN")
    add("--batch-size", type=int, default=8, help="most pictures in one call of the model (%(default)s)")
    add("--max-wait-ms", type=float, default=5, help="how long a call waits for more (%(default)s)")
    add("--max-upload-mb", type=float, default=upload / 1e6, help="of one request (%(default)s)")
    add("--max-pixels", type=int, default=pixels, help="of one picture (%(default)s)")
    add("--max-pictures", type=int, default=pictures, help="of one request (%(default)s)")
    add("--max-waiting", type=int, default=waiting, help="pictures of all requests at once (%(default)s)")
    add(
        "--timeout-s",
        type=float,
        default=timeout,
        help="for a body to come; again for its answer (%(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    """Parse, load, listen."""
    list(map(require, PACKAGES))
    from src.serving import Limits, Service, build_app, bytes_of, read_token, serve

    args = parse(Limits())
    setup_logging(None)
    token = read_token(args.token_file, os.environ.get("DFINE_TOKEN"))
    limits = Limits(
        bytes_of(args.max_upload_mb), args.max_pixels, args.max_pictures, args.max_waiting, args.timeout_s
    ).checked()
    detector = Detector.load(
        args.model, config=args.config, device=args.device, num_threads=args.threads, bfloat16=args.bfloat16
    )
    detector(Image.new("RGB", (64, 64)))  # what cannot run is told now, and the first client does not wait
    service = Service(
        detector.runtime,
        args.model.resolve().name,
        limits,
        batch_size=args.batch_size,
        max_wait_ms=args.max_wait_ms,
    )
    app = build_app(service, token)
    with contextlib.closing(service):
        serve(app, args.host, args.port, timeout_s=args.timeout_s, is_guarded=token is not None)


if __name__ == "__main__":
    sys.exit(door.run(main, waits_for_threads=False))
