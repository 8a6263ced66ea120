"""Inference in turns: PyTorch against transformers' D-FINE, exported files in ONNX Runtime and OpenVINO.

    python -m benchmarks.inference [--work torch graph pictures] [--threads 2] [--rounds 7] [--json FILE]

- `torch`: D-FINE-L in PyTorch against the D-FINE-L of `transformers` with the same weights.
- `graph`: dfine_dinov3_s_coco, exported, against the bare ViT-S/16 of timm as torch exports it.
- `pictures`: what comes before and after the detector, a picture of 640x480, in one thread, ten times the
  rounds: one picture right after the other.

Weights are random, which costs the same. All calls of a kind run in turns in one process, so that a slow
minute of the machine falls on all of them. On a machine that others use, `--clock cpu --threads 1` counts the
processor's seconds instead, which are a clock's on an idle machine.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from PIL import Image

from src import assembly
from src.deploy import (
    DeployModel,
    Detector,
    GraphOptions,
    ModelCard,
    OnnxRuntime,
    OpenVinoRuntime,
    export_onnx,
)
from src.deploy.lean import make_lean
from src.deploy.machine import this_machine
from src.deploy.runtimes import Runtime
from src.deploy.timing import interleaved, summarize
from src.nn.deploy import to_deploy
from src.structures import ClassNames, Detections, FinalOutput

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dfine"
SIDE = 640
SERIES = 10
Call = Callable[[], object]


class Pair(NamedTuple):
    """A ratio to report.

    Attributes:
        work: What is done.
        ours: Name of the call that does it our way.
        against: Name of the call that it is compared with.
        aim: What the ratio `against` / `ours` should be at least.
    """

    work: str
    ours: str
    against: str
    aim: float


class Settings(NamedTuple):
    """How to measure: threads of a call, rounds, and the clock."""

    threads: int
    rounds: int
    clock: Callable[[], float]


def torch_calls(batch: int) -> tuple[dict[str, Call], list[Pair]]:
    """D-FINE-L, ours ready for inference and as it is, and transformers'."""
    torch.manual_seed(0)
    ours = assembly.build_model(assembly.load(CONFIGS / "dfine_hgnetv2_l_coco.yml", [])).eval()
    with torch.no_grad():
        for parameter in ours.parameters():  # heads start at 0, which would hide a difference
            parameter.add_(0.02 * torch.randn_like(parameter))
    theirs = their_large_model(ours)
    ready = make_lean(to_deploy(ours))
    images = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, golden, expected = ready(images), theirs(pixel_values=images), ours(images)
    theirs_found = FinalOutput(golden.logits, golden.pred_boxes)
    print(
        f"D-FINE-L, batch {batch}: 99 % of our boxes within {_farthest(found, expected):.1e} of the model as "
        f"trained, within {_farthest(found, theirs_found):.1e} of transformers'"
    )

    def run(model: torch.nn.Module, **inputs: torch.Tensor) -> Call:
        def call() -> object:
            with torch.inference_mode():
                return model(**inputs)

        return call

    names = [f"D-FINE-L b{batch} {kind}" for kind in ("ours, ready", "ours, as trained", "transformers")]
    models = (ready, ours, theirs)
    keys = ("images", "images", "pixel_values")
    calls = {n: run(m, **{k: images}) for n, m, k in zip(names, models, keys, strict=True)}
    return calls, [Pair(f"PyTorch, D-FINE-L, batch {batch}", names[0], names[2], 1.3)]


def _farthest(found: FinalOutput, expected: FinalOutput) -> float:
    """How far 99 of 100 boxes are from the nearest; cells of almost equal scores may change places."""
    distance = (found.boxes_cxcywh[:, :, None] - expected.boxes_cxcywh[:, None]).abs().amax(-1)
    return float(distance.amin(1).quantile(0.99))


def their_large_model(ours: torch.nn.Module) -> torch.nn.Module:
    """The D-FINE-L of transformers with our weights."""
    import transformers

    from tests.nn.transformers_names import give_weights

    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 32, 48],
        stage_in_channels=[48, 128, 512, 1024],
        stage_mid_channels=[48, 96, 192, 384],
        stage_out_channels=[128, 512, 1024, 2048],
        hidden_sizes=[128, 512, 1024, 2048],
        stage_num_blocks=[1, 1, 3, 1],
        stage_numb_of_layers=[6, 6, 6, 6],
        out_indices=[2, 3, 4],
        use_learnable_affine_block=False,
    )
    config = transformers.DFineConfig(
        backbone_config=backbone,
        num_labels=80,
        encoder_in_channels=[512, 1024, 2048],
        decoder_n_points=[3, 6, 3],
        decoder_layers=6,
    )
    theirs = transformers.DFineForObjectDetection(config).eval()
    with torch.no_grad():
        give_weights(ours, theirs)
    return theirs


def graph_calls(folder: Path, threads: int) -> tuple[dict[str, Call], list[Pair]]:
    """Our model and the bare ViT in ONNX Runtime, our model in OpenVINO."""
    import onnxruntime

    model, postprocessor, classes, _ = assembly.load_detector(CONFIGS / "dfine_dinov3_s_coco.yml", None, [])
    deploy = DeployModel(to_deploy(model), postprocessor).eval()
    card = ModelCard(classes, (SIDE, SIDE), "dfine_dinov3_s_coco")
    exported = export_onnx(deploy, folder / "ours.onnx", card, GraphOptions(batch=1))
    print(f"dfine_dinov3_s_coco at {SIDE}: {exported.num_nodes} nodes")
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    sizes_hw = torch.tensor([[480, 640]])
    vit = timm.create_model(
        "vit_small_patch16_dinov3", pretrained=False, num_classes=0, global_pool="", img_size=SIDE
    ).eval()
    program = torch.onnx.export(vit, (images,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(folder / "vit.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    bare = onnxruntime.InferenceSession(folder / "vit.onnx", options, providers=["CPUExecutionProvider"])
    feed = {bare.get_inputs()[0].name: images.numpy()}

    def run(runtime: Runtime) -> Call:
        return lambda: runtime.run(images, sizes_hw)

    calls: dict[str, Call] = {
        "bare ViT-S/16, ONNX Runtime": lambda: bare.run(None, feed),
        "ours, ONNX Runtime": run(OnnxRuntime(exported.path, num_threads=threads)),
    }
    pairs = [Pair("ONNX Runtime, batch 1", "ours, ONNX Runtime", "bare ViT-S/16, ONNX Runtime", 1 / 1.15)]
    try:
        for name, low in (("ours, OpenVINO float32", False), ("ours, OpenVINO bfloat16", True)):
            calls[name] = run(OpenVinoRuntime(exported.path, num_threads=threads, bfloat16=low))
        pairs.append(Pair("OpenVINO bfloat16, batch 1", "ours, OpenVINO bfloat16", "ours, ONNX Runtime", 2.2))
    except ValueError as error:
        print(f"without OpenVINO: {error}")
    return calls, pairs


class Nothing:
    """A runtime that finds 300 objects in no time: what is left is the work around it."""

    classes = ClassNames(tuple(map(str, range(80))), tuple(range(80)))
    input_hw = (SIDE, SIDE)
    keep_ratio = False

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, 300, 80, generator=generator)
        self.output = FinalOutput(logits, torch.rand(1, 300, 4, generator=generator))
        self.postprocessor = assembly.load_detector(
            CONFIGS / "dfine_dinov3_demo.yml", None, ["num_classes=80"]
        )[1]

    def run(self, images: torch.Tensor, sizes_hw: torch.Tensor) -> Detections:
        """The same for every picture."""
        assert images.shape[1:] == (3, *self.input_hw)
        return self.postprocessor(self.output, sizes_hw)  # type: ignore[no-any-return]


def picture_calls(folder: Path) -> tuple[dict[str, Call], list[Pair]]:
    """A JPEG's way to the detector's input, and from its output to the predictions."""
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((640, 480))
    path = folder / "picture.jpg"
    soft.save(path, quality=90)
    detector = Detector(Nothing())

    def decode() -> object:
        with Image.open(path) as image:
            return image.convert("RGB")

    return {"decode alone": decode, "decode, prepare, select": lambda: detector(path)}, []


def measure(
    calls: dict[str, Call], pairs: list[Pair], settings: Settings, pause: Call | None = gc.collect
) -> dict[str, Any]:
    """Time the calls in turns, with `pause` before each, print them and their ratios."""
    times = interleaved(
        list(calls.values()), repeats=settings.rounds, warm_up=2, clock=settings.clock, pause=pause
    )
    seconds = dict(zip(calls, times, strict=True))
    for name, row in seconds.items():
        timing = summarize(row)
        print(f"  {name:<36}{1e3 * timing.median:>10.1f} ms  ({1e3 * min(row):.1f} at the least)")
    ratios = []
    for pair in pairs:
        ratio = summarize(seconds[pair.against]).median / summarize(seconds[pair.ours]).median
        least = min(seconds[pair.against]) / min(seconds[pair.ours])
        print(
            f"  {pair.work}: {ratio:.2f}x of {pair.against} ({least:.2f}x of the least), aim {pair.aim:.2f}x"
        )
        ratios.append({**pair._asdict(), "ratio": ratio, "ratio_of_least": least})
    return {"seconds": seconds, "ratios": ratios}


def main() -> None:
    """Parse, measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    works = ("torch", "graph", "pictures")
    parser.add_argument("--work", nargs="+", choices=works, default=works)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="of D-FINE-L in PyTorch")
    parser.add_argument("--threads", type=int, default=2, help="of one call")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    settings = Settings(args.threads, args.rounds, clock)
    machine = this_machine(torch.device("cpu"))
    print(f"{machine.line()}; {args.rounds} rounds in turns, {args.clock} clock, medians")
    done = []
    with tempfile.TemporaryDirectory() as name:
        if "torch" in args.work:
            done += [measure(*torch_calls(batch), settings) for batch in args.batches]
        if "graph" in args.work:
            done.append(measure(*graph_calls(Path(name), args.threads), settings))
        if "pictures" in args.work:
            torch.set_num_threads(1)
            series = settings._replace(threads=1, rounds=SERIES * args.rounds)
            done.append(measure(*picture_calls(Path(name)), series, pause=None))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine._asdict(), "runs": done}, indent=2) + "\n")


if __name__ == "__main__":
    main()
