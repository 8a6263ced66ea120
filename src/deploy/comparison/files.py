"""Forms of one detector side by side, a file each: size, speed, AP, and whether they find the same."""

import logging
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ...data import Origin
from ...structures import Detections
from ..agreement import Agreement, Tolerance, measure
from ..detector import CHECKPOINTS, Detector
from ..runtimes import OpenVinoRuntime
from ..samples import pictures, readable
from ..scores import coco_numbers
from ..sources import find_pictures, read
from .file_table import Entry, FileComparison
from .machine import this_machine
from .models import SETTLE_S, WARM_UP
from .timing import Timing, interleaved, summarize

logger = logging.getLogger(__name__)

NUM_PICTURES = 40
SAME = Tolerance(score=1e-3, box_px=0.5, ap=0)
"""What nobody who uses a detector would notice."""


class Form(NamedTuple):
    """One form of the detector.

    Attributes:
        label: Its file's name, and of a checkpoint which of its two forms, or in what it calculates.
        runtime: What runs it.
        path: Its file.
        size_bytes: What it takes on the disk; a checkpoint may hold what training needs, too.
        detector: It, ready.
    """

    label: str
    runtime: str
    path: Path
    size_bytes: int
    detector: Detector


def compare_files(
    paths: Sequence[Path],
    *,
    config: Path | None = None,
    data: Origin | None = None,
    folder: Path | None = None,
    threads: int | None = None,
    repeats: int = 20,
    threshold: float = 0.0,
    bfloat16: bool = False,
) -> FileComparison:
    """Measure forms of one detector on the CPU, in turns, in one run.

    Args:
        paths: Files as `Detector.load` takes them; a checkpoint is measured as it was trained, and in the
            form that is deployed.
        config: The YAML file of checkpoints that hold none.
        data: Pictures with objects, for the AP.
        folder: Pictures to compare detections on; None takes the first of `data`.
        threads: Threads of one call; None for torch's choice.
        repeats: Measured rounds.
        threshold: Detections below it are not compared.
        bfloat16: Measure each `.xml` file a second time, calculating in bfloat16.

    Raises:
        ValueError: A file or the dataset is faulty, or the files are of detectors of other classes.
    """
    check_timing(threads, repeats)
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold {threshold} was asked for, allowed are 0 to 1")
    if bfloat16 and not any(path.suffix == ".xml" for path in paths):
        raise ValueError("--bfloat16 was asked for, which is for .xml files; name one among the models")
    if threads is not None:
        torch.set_num_threads(threads)
    forms = [form for path in paths for form in _open(path, _label(path, paths), config, bfloat16)]
    _check_classes(forms)
    runtimes = {form.runtime for form in forms}
    machine = this_machine(
        torch.device("cpu"), onnx="ONNX Runtime" in runtimes, openvino="OpenVINO" in runtimes
    )
    tolerance = SAME._replace(floor=threshold)
    agreements = _agreements(forms, _pictures(data, folder), tolerance)
    timings = _timings(forms, repeats)
    entries = [
        Entry(*form[:4], timing, _metrics(form, data), agreement)
        for form, timing, agreement in zip(forms, timings, agreements, strict=True)
    ]
    return FileComparison(machine, tolerance, tuple(entries))


def check_timing(threads: int | None, repeats: int) -> None:
    """Refuse what cannot be timed.

    Raises:
        ValueError: A number is out of range.
    """
    for name, value in (("--threads", threads), ("--repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value} was asked for, allowed is 1 or more")


def _label(path: Path, paths: Sequence[Path]) -> str:
    """A file's name, or its whole path where others have that name."""
    return path.name if sum(other.name == path.name for other in paths) == 1 else str(path)


def _open(path: Path, label: str, config: Path | None, bfloat16: bool) -> list[Form]:
    """The forms that a file stands for."""
    logger.info("%s: open", path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name checkpoints and exported files")
    if path.suffix not in CHECKPOINTS:
        threads = torch.get_num_threads()
        detector = Detector.load(path, num_threads=threads)
        weights = path.with_suffix(".bin")
        is_ir = path.suffix == ".xml"
        size = path.stat().st_size + (weights.stat().st_size if is_ir and weights.is_file() else 0)
        form = Form(label, "OpenVINO" if is_ir else "ONNX Runtime", path, size, detector)
        if not (is_ir and bfloat16):
            return [form]
        other = OpenVinoRuntime(path, num_threads=threads, bfloat16=True)
        return [form, form._replace(label=f"{label}, {other.precision}", detector=Detector(other))]
    return [
        Form(
            f"{label}, {name}",
            "PyTorch",
            path,
            path.stat().st_size,
            Detector.load(path, config=config, device="cpu", as_trained=as_trained),
        )
        for name, as_trained in (("as trained", True), ("deploy form", False))
    ]


def _check_classes(forms: Sequence[Form]) -> None:
    first = forms[0]
    for form in forms:
        if form.detector.classes != first.detector.classes:
            raise ValueError(
                f"{form.path} has other classes than {first.path}; name files of one detector (other models "
                "are compared by tools/benchmark/compare.py)"
            )


def _pictures(data: Origin | None, folder: Path | None) -> list[Image.Image]:
    """Pictures to compare detections on, if any."""
    if folder is not None:
        return [frame.image for frame in read(find_pictures(folder)[:NUM_PICTURES])]
    return [] if data is None else list(islice(readable(data), NUM_PICTURES))


def _agreements(
    forms: Sequence[Form], images: Sequence[Image.Image], tolerance: Tolerance
) -> list[Agreement | None]:
    """How far each form is from the first."""
    if not images:
        return [None] * len(forms)
    logger.info("compare detections in %d pictures", len(images))
    reference, *others = (_detections(form.detector, images) for form in forms)
    return [None, *(measure(reference, other, tolerance) for other in others)]


def _detections(detector: Detector, images: Sequence[Image.Image]) -> Detections:
    """All that a detector finds, one picture a call."""
    rows = [(one.labels, one.boxes, one.scores) for one in detector.stream(list(images), 0.0)]
    return Detections(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


def _timings(forms: Sequence[Form], repeats: int) -> list[Timing]:
    """Latency of every form, all in turn."""
    logger.info("time %d rounds", repeats)
    sizes_hw = torch.tensor([[480, 640]])
    calls = []
    for form in forms:
        runtime = form.detector.runtime
        image = pictures(1, runtime.input_hw)
        calls.append(lambda run=runtime.run, image=image: run(image, sizes_hw))
    taken = interleaved(calls, repeats=repeats, warm_up=WARM_UP, pause=lambda: time.sleep(SETTLE_S))
    return [summarize(seconds) for seconds in taken]


def _metrics(form: Form, data: Origin | None) -> dict[str, float] | None:
    if data is None:
        return None
    logger.info("%s: evaluate", form.label)
    return coco_numbers(form.detector.runtime, data).numbers()
