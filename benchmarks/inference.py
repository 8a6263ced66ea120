"""Inference in turns: PyTorch against transformers' D-FINE, exported files in ONNX Runtime and OpenVINO.

    python -m benchmarks.inference [--work torch deimv2 graph pictures] [--threads 2] [--rounds 5]

- `torch`: D-FINE-L in PyTorch against the D-FINE-L of `transformers` with the same weights.
- `deimv2`: dfine_dinov3_s_coco in PyTorch against the DEIMv2-L of `transformers`, which has the same ViT.
- `graph`: dfine_dinov3_s_coco, exported, against the bare ViT-S/16 of timm as torch exports it.
- `pictures`: what comes before and after the detector, a picture of 640x480 and 300 objects, in one thread,
  ten times the rounds: one picture right after the other.

Weights are random, which costs the same. All calls of a kind run in turns in one process, so that a slow
minute of the machine falls on all of them. On a machine that others use, `--clock cpu --threads 1` counts the
processor's seconds instead, which are a clock's on an idle machine.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from src import assembly, door
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
from src.deploy.runtimes import Runtime
from src.nn.deploy import to_deploy
from src.structures import ClassNames, Detections, FinalOutput

from .pairs import CLOCKS, Call, Pair, Way, measure
from .peers import d_fine_large, deimv2_large
from .rows import Row, machine, machine_line, report

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dfine"
SIDE = 640
SERIES = 10
NUM_OBJECTS = 300
OURS = "dfine_dinov3_s_coco, 640 px"


def torch_calls(batch: int) -> tuple[dict[str, Call], list[Pair]]:
    """D-FINE-L, ours ready for inference, and transformers'."""
    torch.manual_seed(0)
    ours = assembly.build_model(assembly.load(CONFIGS / "dfine_hgnetv2_l_coco.yml", [])).eval()
    with torch.no_grad():
        for parameter in ours.parameters():  # heads start at 0, which would hide a difference
            parameter.add_(0.02 * torch.randn_like(parameter))
    theirs = d_fine_large(ours)
    ready = make_lean(to_deploy(ours))
    images = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, golden, expected = ready(images), theirs(pixel_values=images), ours(images)
    theirs_found = FinalOutput(golden.logits, golden.pred_boxes)
    print(
        f"D-FINE-L, batch {batch}: 99 % of our boxes within {_farthest(found, expected):.1e} of the model as "
        f"trained, within {_farthest(found, theirs_found):.1e} of transformers'"
    )

    calls = {
        f"D-FINE-L b{batch}, ours": _run(ready, images),
        f"D-FINE-L b{batch}, transformers": _run(theirs, images),
    }
    return calls, [Pair(f"PyTorch, D-FINE-L, {SIDE} px, batch {batch}", *calls, 1.3)]


def deimv2_calls(batch: int) -> tuple[dict[str, Call], list[Pair]]:
    """dfine_dinov3_s_coco, ready for inference, and DEIMv2-L, which has the same ViT."""
    ours = assembly.build_model(assembly.load(CONFIGS / "dfine_dinov3_s_coco.yml", [])).eval()
    images = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    calls = {
        f"dfine_dinov3_s_coco b{batch}": _run(make_lean(to_deploy(ours)), images),
        f"DEIMv2-L b{batch}, transformers, the same ViT": _run(deimv2_large(), images),
    }
    return calls, [Pair(f"PyTorch, {OURS}, batch {batch}", *calls, None)]


def _run(model: torch.nn.Module, images: torch.Tensor) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return model(images)

    return call


def _farthest(found: FinalOutput, expected: FinalOutput) -> float:
    """How far 99 of 100 boxes are from the nearest; cells of almost equal scores may change places."""
    distance = (found.boxes_cxcywh[:, :, None] - expected.boxes_cxcywh[:, None]).abs().amax(-1)
    return float(distance.amin(1).quantile(0.99))


def graph_calls(folder: Path, threads: int) -> tuple[dict[str, Call], list[Pair], Row]:
    """Our model and the bare ViT in ONNX Runtime, our model in OpenVINO; and how many nodes our graph has."""
    import onnxruntime

    model, postprocessor, classes, _ = assembly.load_detector(CONFIGS / "dfine_dinov3_s_coco.yml", None, [])
    deploy = DeployModel(to_deploy(model), postprocessor).eval()
    card = ModelCard(classes, (SIDE, SIDE), "dfine_dinov3_s_coco")
    exported = export_onnx(deploy, folder / "ours.onnx", card, GraphOptions(batch=1))
    nodes = Row(f"graph of {OURS}, batch 1", "", exported.num_nodes, "nodes", 1500, at_most=True)
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
    pairs = [
        Pair(
            f"ONNX Runtime, {OURS}, batch 1", "ours, ONNX Runtime", "bare ViT-S/16, ONNX Runtime", 1.15, True
        )
    ]
    try:
        for name, low in (("ours, OpenVINO float32", False), ("ours, OpenVINO bfloat16", True)):
            calls[name] = run(OpenVinoRuntime(exported.path, num_threads=threads, bfloat16=low))
        pairs.append(
            Pair(f"OpenVINO bfloat16, {OURS}, batch 1", "ours, OpenVINO bfloat16", "ours, ONNX Runtime", 2.2)
        )
    except ValueError as error:
        print(f"without OpenVINO: {error}")
    return calls, pairs, nodes


class Nothing:
    """A runtime that finds 300 objects in no time: what is left is the work around it."""

    classes = ClassNames(tuple(map(str, range(80))), tuple(range(80)))
    input_hw = (SIDE, SIDE)
    keep_ratio = False

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, NUM_OBJECTS, 80, generator=generator)
        self.output = FinalOutput(logits, torch.rand(1, NUM_OBJECTS, 4, generator=generator))
        self.postprocessor = assembly.load_detector(
            CONFIGS / "dfine_dinov3_demo.yml",
            None,
            ["num_classes=80", f"DFINEPostProcessor.num_top_queries={NUM_OBJECTS}"],
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
    detector, decoded = Detector(Nothing()), Image.open(path).convert("RGB")
    assert len(detector(decoded, threshold=0)[0].scores) == NUM_OBJECTS
    calls: dict[str, Call] = {
        "prepare, select": lambda: detector(decoded, threshold=0),
        "decode, prepare, select": lambda: detector(path, threshold=0),
    }
    work = "before and after the detector, 640 x 480"
    return calls, [
        Pair(f"{work}, decoded", "prepare, select", None, 3.0, at_most=True),
        Pair(f"{work}, a JPEG", "decode, prepare, select", None, None),
    ]


def main() -> None:
    """Parse, measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    works = ("torch", "deimv2", "graph", "pictures")
    parser.add_argument("--work", nargs="+", choices=works, default=works)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="in PyTorch")
    parser.add_argument("--threads", type=int, default=2, help="of one call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    described = machine()
    print(f"{machine_line(described)}; float32 where nothing else is said", flush=True)
    way, rows = Way(args.rounds, args.threads, args.clock), []
    with tempfile.TemporaryDirectory() as name:
        for work, calls in (("torch", torch_calls), ("deimv2", deimv2_calls)):
            if work in args.work:
                rows += [row for batch in args.batches for row in measure(*calls(batch), way)]
        if "graph" in args.work:
            *graphs, nodes = graph_calls(Path(name), args.threads)
            rows += [*measure(*graphs, way), nodes]
        if "pictures" in args.work:
            torch.set_num_threads(1)
            often = Way(SERIES * args.rounds, 1, args.clock)
            rows += measure(*picture_calls(Path(name)), often, pause=None)
    report(described, rows, args.json)


if __name__ == "__main__":
    sys.exit(door.run(main))
