"""Several models side by side, measured in one run: their costs, their speed and their AP."""

import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...assembly import build_evaluation, build_model, build_postprocessor, load
from ...nn.deploy import to_deploy
from ...solver.checkpoint import read_checkpoint
from ...solver.evaluate import Evaluation
from ...solver.precision import choose_precision
from ...solver.weights import class_names, load_model
from ...structures import ClassNames
from ..export.onnx_graph import DeployModel, export_onnx
from ..extras import require
from ..lean import make_lean
from ..metadata import ModelCard
from ..runtimes import OnnxRuntime
from ..samples import pictures
from .machine import this_machine
from .model_info import ModelInfo, describe
from .model_table import Comparison, Entry, Speed
from .timing import interleaved, summarize

logger = logging.getLogger(__name__)

BATCH = 8
WARM_UP = 5  # rounds; the first calls plan convolutions and fill caches of memory
SETTLE_S = 0.02  # on a CPU: threads of a call before this one spin for a while before they sleep

Call = Callable[[], object]
Runner = Callable[[int], Call]
"""Gives the call that detects in so many pictures."""


class Data(NamedTuple):
    """Pictures to evaluate on.

    Attributes:
        img_folder: Folder of the pictures.
        ann_file: Their annotations, COCO's format.
    """

    img_folder: Path
    ann_file: Path


class Contestant(NamedTuple):
    """A model that is ready to be measured.

    Attributes:
        label: Its name, unlike all others.
        config: Its YAML file.
        checkpoint: Where its weights came from, None for random ones.
        deploy: Its deploy form, with its postprocessor, on the device.
        classes: What it detects; without names in the checkpoint, called by their index.
        info: Its costs.
        evaluation: The pictures to evaluate it on, if any.
    """

    label: str
    config: Path
    checkpoint: Path | None
    deploy: DeployModel
    classes: ClassNames
    info: ModelInfo
    evaluation: Evaluation | None


def compare_models(
    configs: Sequence[Path],
    checkpoints: Sequence[Path],
    device: torch.device,
    *,
    overrides: Sequence[str] = (),
    size_hw: tuple[int, int] | None = None,
    data: Data | None = None,
    onnx: bool = False,
    repeats: int = 20,
    threads: int | None = None,
) -> Comparison:
    """Measure models in turns, in one run.

    Args:
        configs: YAML files of experiments.
        checkpoints: One for each config, or none at all: random weights.
        device: Where PyTorch computes. ONNX Runtime computes on the CPU.
        overrides: `key=value` for every config.
        size_hw: Input size of every model; None for each config's own.
        data: Pictures for the AP; None for no AP.
        onnx: Whether to export each model and time it in ONNX Runtime too.
        repeats: Measured rounds.
        threads: Threads of one call on the CPU, in both runtimes; None for torch's choice.

    Raises:
        ValueError: An option, a config, a checkpoint or the dataset is faulty.
    """
    _check(configs, checkpoints, data, repeats, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    machine = this_machine(device, onnx=onnx)
    if onnx:
        require("onnxscript")  # before minutes of timing
    changes = [*overrides, *_changes(size_hw, data)]
    weights: list[Path | None] = [*checkpoints] or [None] * len(configs)
    contestants = [
        _prepare(label, config, checkpoint, changes, device, evaluate=data is not None)
        for label, config, checkpoint in zip(labels(configs), configs, weights, strict=True)
    ]
    place = "GPU" if device.type == "cuda" else "CPU"
    speeds = [
        _speeds(f"PyTorch, {place}", [_torch_runner(one, device) for one in contestants], repeats, device)
    ]
    if onnx:
        with tempfile.TemporaryDirectory(prefix="compare-") as folder:
            runners = [
                _onnx_runner(one, Path(folder) / f"{index}.onnx") for index, one in enumerate(contestants)
            ]
            speeds.append(_speeds("ONNX Runtime, CPU", runners, repeats, torch.device("cpu")))
    return Comparison(
        machine,
        tuple(
            _entry(one, own_speeds, device)
            for one, own_speeds in zip(contestants, zip(*speeds, strict=True), strict=True)
        ),
    )


def labels(configs: Sequence[Path]) -> list[str]:
    """A name for each config: its file's, with its place in the list where several have that name."""
    counts = Counter(config.stem for config in configs)
    return [
        config.stem if counts[config.stem] == 1 else f"{config.stem} ({index})"
        for index, config in enumerate(configs, start=1)
    ]


def _check(
    configs: Sequence[Path], checkpoints: Sequence[Path], data: Data | None, repeats: int, threads: int | None
) -> None:
    """Refuse options that do not fit together, before any work."""
    if checkpoints and len(checkpoints) != len(configs):
        raise ValueError(
            f"{len(checkpoints)} checkpoints came for {len(configs)} configs; name one for "
            "each, in their order"
        )
    if data is not None and not checkpoints:
        raise ValueError("--data asks for AP, which random weights do not have; name checkpoints with -r")
    if repeats < 1:
        raise ValueError(f"--repeats {repeats} was asked for, allowed is 1 or more")
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads} was asked for, allowed is 1 or more")


def _changes(size_hw: tuple[int, int] | None, data: Data | None) -> list[str]:
    """The options as overrides of a config; JSON's strings and lists are YAML's too."""
    changes = [] if size_hw is None else [f"eval_spatial_size={json.dumps(size_hw)}"]
    if data is not None:
        changes.append(f"val_dataloader.dataset.img_folder={json.dumps(str(data.img_folder))}")
        changes.append(f"val_dataloader.dataset.ann_file={json.dumps(str(data.ann_file))}")
    return changes


def _prepare(
    label: str,
    config: Path,
    checkpoint: Path | None,
    overrides: Sequence[str],
    device: torch.device,
    *,
    evaluate: bool,
) -> Contestant:
    """Build, load, fuse and count; faults of the dataset show here, before minutes of timing."""
    logger.info("%s: build and count", label)
    experiment = load(config, overrides)
    model = build_model(experiment)
    classes: ClassNames | None = None
    if checkpoint is not None:
        state = read_checkpoint(checkpoint)
        load_model(model, state, checkpoint)
        classes = class_names(state)
    deployed = to_deploy(model).to(device)
    evaluation = build_evaluation(experiment, device, deployed, classes) if evaluate else None
    deploy = DeployModel(make_lean(deployed), build_postprocessor(experiment).to(device)).eval()
    info = describe(model, deployed, experiment.eval_spatial_size)
    indices = range(experiment.num_classes)
    named = classes or ClassNames(tuple(map(str, indices)), tuple(indices))
    return Contestant(label, config, checkpoint, deploy, named, info, evaluation)


def _torch_runner(contestant: Contestant, device: torch.device) -> Runner:
    """Detection in PyTorch, on pictures that are on the device already."""

    def runner(count: int) -> Call:
        images = pictures(count, contestant.info.size_hw).to(device)
        sizes_wh = torch.tensor([[640, 480]], device=device).repeat(count, 1)

        @torch.inference_mode()
        def call() -> None:
            contestant.deploy(images, sizes_wh)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return call

    return runner


def _onnx_runner(contestant: Contestant, path: Path) -> Runner:
    """Detection in ONNX Runtime, from a file exported for it."""
    logger.info("%s: export to ONNX", contestant.label)
    size_hw = contestant.info.size_hw
    card = ModelCard(contestant.classes, size_hw, contestant.config.stem)
    device = next(contestant.deploy.parameters()).device
    export_onnx(contestant.deploy.cpu(), path, card)
    contestant.deploy.to(device)
    runtime = OnnxRuntime(path, num_threads=torch.get_num_threads())

    def runner(count: int) -> Call:
        images = pictures(count, size_hw)
        sizes_hw = torch.tensor([[480, 640]]).repeat(count, 1)
        return lambda: runtime.run(images, sizes_hw)

    return runner


def _speeds(name: str, runners: Sequence[Runner], repeats: int, device: torch.device) -> list[Speed]:
    """Latency and throughput of every model in one runtime, all models in turn."""
    pause: Call | None = None if device.type == "cuda" else lambda: time.sleep(SETTLE_S)
    taken: dict[int, tuple[tuple[float, ...], ...]] = {}
    for count in (1, BATCH):
        logger.info("%s: time %d rounds, batch %d", name, repeats, count)
        calls = [runner(count) for runner in runners]
        taken[count] = interleaved(calls, repeats=repeats, warm_up=WARM_UP, pause=pause)
    return [
        Speed(name, summarize(single), summarize(batched), BATCH)
        for single, batched in zip(taken[1], taken[BATCH], strict=True)
    ]


def _entry(contestant: Contestant, speeds: tuple[Speed, ...], device: torch.device) -> Entry:
    """What is known of a model, its AP found now."""
    return Entry(
        label=contestant.label,
        config=str(contestant.config),
        checkpoint=None if contestant.checkpoint is None else str(contestant.checkpoint),
        info=contestant.info,
        speeds=speeds,
        metrics=_metrics(contestant, device),
    )


def _metrics(contestant: Contestant, device: torch.device) -> dict[str, float] | None:
    """COCO's numbers of the deploy form, in float32 as it was timed."""
    if contestant.evaluation is None:
        return None
    logger.info("%s: evaluate", contestant.label)
    model: Any = contestant.deploy.model
    metrics, _ = contestant.evaluation(model, choose_precision(device, use_amp=False))
    return metrics.numbers()
