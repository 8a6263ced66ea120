"""What a run does, once and on made-up pictures: detect at many sizes, learn for a step, go out as ONNX."""

import tempfile
import time
from pathlib import Path

import torch

from .. import assembly
from ..core import Experiment
from ..deploy import DeployModel, ModelCard, export_verified
from ..deploy.samples import pictures
from ..nn.deploy import to_deploy
from ..solver.optimization import build_step
from ..solver.precision import choose_precision
from ..structures import ClassNames, FinalOutput, Targets
from .findings import Outcome

SIZES_HW = ((256, 704), (224, 224), (900, 1600), (480, 640), (300, 500))
QUICK_HW = (160, 160)
STEPS_PER_EPOCH = 1000  # of the schedule that the one step is the beginning of


def run_at_sizes(experiment: Experiment, device: torch.device, quick: bool) -> Outcome:
    """Detect in one picture of each size; with `quick` their sides are a quarter.

    Raises:
        ValueError: An output is not finite.
    """
    began = time.perf_counter()
    model = assembly.build_model(experiment).to(device).eval()
    sizes = [(height // 4, width // 4) if quick else (height, width) for height, width in SIZES_HW]
    for size in sizes:
        with torch.inference_mode():
            output: FinalOutput = model(pictures(1, size).to(device))
        if not bool(torch.isfinite(output.logits).all() and torch.isfinite(output.boxes_cxcywh).all()):
            raise ValueError(f"an output for {size[0]}x{size[1]} is not a finite number")
    shown = ", ".join(f"{height}x{width}" for height, width in sizes)
    return Outcome("ok", f"{shown} on {device}, {time.perf_counter() - began:.1f} s")


def train_a_step(experiment: Experiment, device: torch.device, quick: bool) -> Outcome:
    """One update of all weights from one picture with two objects, in the configuration's precision.

    Raises:
        ValueError: A loss or a gradient is not finite.
    """
    began = time.perf_counter()
    height, width = QUICK_HW if quick else experiment.eval_spatial_size
    model = assembly.build_model(experiment).to(device).train()
    amp = experiment.amp
    precision = choose_precision(device, use_amp=experiment.use_amp, dtype=amp.dtype, opt_level=amp.opt_level)
    criterion = assembly.build_criterion(experiment).to(device)
    step = build_step(experiment, model, criterion, precision, steps_per_epoch=STEPS_PER_EPOCH)
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.4, 0.2]])
    labels = torch.tensor([0, experiment.num_classes - 1])
    targets = Targets(boxes, labels, (2,), (0,), ((height, width),)).to(device)
    result = step(step.callee, [(pictures(1, (height, width)).to(device), targets)])
    if not result.finite:
        raise ValueError(f"a loss or a gradient at {height}x{width} is not a finite number")
    loss = float(result.losses.sum())
    return Outcome(
        "ok", f"{height}x{width} on {device}, loss {loss:.2f}, {time.perf_counter() - began:.1f} s"
    )


def export_and_compare(experiment: Experiment, name: str, quick: bool) -> Outcome:
    """Write an ONNX file with random weights and run it beside PyTorch.

    Raises:
        ValueError: It could not be written, or gives other detections.
    """
    began = time.perf_counter()
    model, postprocessor = assembly.build_model(experiment).eval(), assembly.build_postprocessor(experiment)
    numbers = range(experiment.num_classes)
    card = ModelCard(
        ClassNames(tuple(map(str, numbers)), tuple(numbers)),
        QUICK_HW if quick else experiment.eval_spatial_size,
        name,
    )
    with tempfile.TemporaryDirectory() as folder:
        exported, evidence = export_verified(
            DeployModel(to_deploy(model), postprocessor).eval(),
            DeployModel(model, postprocessor).eval(),
            Path(folder) / "model.onnx",
            card,
        )
    assert evidence is not None, "it is verified"
    agreement = evidence.agreement
    seconds = time.perf_counter() - began
    return Outcome(
        "ok",
        f"{exported.num_nodes} nodes; scores within {agreement.max_score_diff:.1g}, boxes within "
        f"{agreement.max_box_diff_px:.1g} px of PyTorch's, {seconds:.1f} s",
    )
