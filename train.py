"""Train a detector, or evaluate one with --test-only: parse, build, go."""

import argparse
import json
import sys
from pathlib import Path

from src import assembly, distributed, door, runs
from src.solver.logs import setup_logging

OPT_LEVELS: dict[str | None, dict[str, bool | str]] = {
    None: {},
    "O0": {"use_amp": False},
    "O1": {"use_amp": True, "amp.opt_level": "O1"},
    "O2": {"use_amp": True, "amp.opt_level": "O2"},
}


def parse() -> argparse.Namespace:
    """The command line; its flags are upstream D-FINE's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument(
        "-r", "--resume", metavar="FILE", help="go on from it, or evaluate it; auto: the newest, the best"
    )
    parser.add_argument("-t", "--tuning", metavar="FILE", help="start from this checkpoint's weights")
    parser.add_argument("-d", "--device", help="cpu, cuda or cuda:N; a GPU if there is one")
    parser.add_argument(
        "-u", "--update", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="a.b=c"
    )
    parser.add_argument("--seed", type=int, help="seed of every random choice")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--use-amp", action="store_true", help="mixed precision, as --opt-level O1")
    precision.add_argument(
        "--opt-level",
        choices=["O0", "O1", "O2"],
        help="O0: float32; O1: mixed; O2: weights in bfloat16, float32 masters",
    )
    parser.add_argument("--eval-every", type=int, metavar="N", help="epochs between two evaluations")
    parser.add_argument("--output-dir", metavar="DIR", help="where checkpoints and logs go")
    parser.add_argument("--summary-dir", metavar="DIR", help="where TensorBoard's files go")
    parser.add_argument("--test-only", action="store_true", help="evaluate the checkpoint of -r and stop")
    parser.add_argument("--print-config", action="store_true", help="print the resolved experiment and stop")
    args = parser.parse_args()
    if args.tuning and args.resume not in (None, "auto"):
        parser.error("-t starts from weights and -r goes on with a run: name one file, or -r auto with -t")
    return args


def main() -> None:
    """Do what the command line says."""
    args = parse()
    setup_logging(None)
    flags = {
        "seed": args.seed,
        "device": args.device,
        "output_dir": args.output_dir,
        "summary_dir": args.summary_dir,
        "eval_every": args.eval_every,
        **OPT_LEVELS["O1" if args.use_amp else args.opt_level],
    }
    stated = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    experiment = assembly.load(Path(args.config), [*args.update, *stated])
    if args.print_config:
        print(assembly.dump(experiment), end="")
        return
    device = distributed.start(experiment.device)
    if args.test_only:
        metrics = runs.test(experiment, device, checkpoint=args.resume)
        if distributed.is_main():
            print(metrics.table())
    else:
        runs.train(experiment, device, resume=args.resume, tune=args.tuning)
    distributed.stop()  # not after an error: it would wait for ranks that go on


if __name__ == "__main__":
    sys.exit(door.run(main))
