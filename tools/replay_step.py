"""Repeat a training step that was skipped, from the file that train.py named as it stopped."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import distributed, door
from src.assembly import build_criterion, build_model, load
from src.solver.bad_step import bad_gradients, bad_words, read_bad_step, replay
from src.solver.guides import build_guidance
from src.solver.precision import choose_precision


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "file", type=Path, help="what train.py wrote, for instance output/NAME/bad_step_0.pth"
    )
    parser.add_argument(
        "-u", "--update", nargs="+", default=[], metavar="KEY=VALUE", help="change its config"
    )
    parser.add_argument("-d", "--device", default="cpu", help="where to compute: cpu, cuda, cuda:1")
    return parser.parse_args()


def main() -> None:
    """Read, build, repeat, print."""
    args = parse()
    device, bad = distributed.choose_device(args.device), read_bad_step(args.file)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yml"
        config.write_text(bad.config)
        experiment = load(config, args.update)
    model = build_model(experiment).to(device)
    amp = experiment.amp
    precision = choose_precision(device, use_amp=experiment.use_amp, dtype=amp.dtype, opt_level=amp.opt_level)
    guidance = build_guidance(experiment, model, device)
    result = replay(bad, model, build_criterion(experiment).to(device), precision, device, guidance)
    pictures = [i for batch in bad.batches for i in batch.targets.image_ids]
    print(f"step {bad.step} of epoch {bad.epoch}, rank {bad.rank}, pictures {pictures}")
    print("then: " + bad_words(bad.losses, bad.gradients))
    losses = dict(zip(result.names, result.losses.tolist(), strict=True))
    print("now:  " + bad_words(losses, bad_gradients(model)))


if __name__ == "__main__":
    sys.exit(door.run(main))
