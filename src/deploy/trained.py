"""What a detector in PyTorch was loaded from, and what is known of it beyond its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..core import Experiment
from ..evaluation.metrics import NAMES, ClassMetrics
from ..nn.backbone import HGNetv2
from ..nn.backbone.dinov2 import is_dinov2
from ..nn.dfine import DFINE
from ..structures import ClassNames


class Trained(NamedTuple):
    """A checkpoint, as it was when a detector was loaded from it.

    Attributes:
        path: The file.
        stamp: Its time of change and size then.
        experiment: What the model was built from.
        classes: The classes, by label.
        backbone: Whose network the backbone is: DINOv3, DINOv2 or HGNetv2.
        pretrained: Whether the experiment says that training began with that network's published weights.
        num_parameters: Of the whole model, as it was trained.
        as_stored: Whether the experiment is the checkpoint's own; otherwise its metrics say nothing here.
    """

    path: Path
    stamp: tuple[int, int] | None
    experiment: Experiment
    classes: ClassNames
    backbone: str
    pretrained: bool
    num_parameters: int
    as_stored: bool

    @property
    def is_dinov3(self) -> bool:
        """Whether the weights are derived from DINOv3's, as far as is known."""
        return self.pretrained and self.backbone == "DINOv3"


class Metrics(NamedTuple):
    """What an evaluation of the very weights in a checkpoint found; empty where none is known.

    Attributes:
        numbers: COCO's 12 numbers by name.
        classes: A row for each class, as in `eval.json`.
    """

    numbers: Mapping[str, float]
    classes: tuple[ClassMetrics, ...]


def stamp_of(path: Path) -> tuple[int, int] | None:
    """By which a file that was written anew is known; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def kind_of_backbone(model: DFINE) -> tuple[str, bool]:
    """Whose network the backbone is, and whether it was to begin with published weights."""
    backbone: Any = model.backbone
    if isinstance(backbone, HGNetv2):
        return "HGNetv2", backbone.pretrained
    return "DINOv2" if is_dinov2(backbone.model_name) else "DINOv3", backbone.pretrained


def metrics_of(trained: Trained, told: Mapping[str, Any]) -> Metrics:
    """The evaluation of the weights themselves: a run's best numbers are mostly of others than its last ones.

    Args:
        trained: The checkpoint.
        told: What it says beside its tensors.
    """
    best = told.get("best")
    nothing = Metrics({}, ())
    if not trained.as_stored or not isinstance(best, Mapping) or told.get("step_in_epoch") != 0:
        return nothing
    if not all(name in best for name in (*NAMES, "epoch")) or best["epoch"] + 1 != told.get("epoch"):
        return nothing
    numbers = {name: float(best[name]) for name in NAMES}
    return Metrics(numbers, _rows_beside(trained, numbers))


def _rows_beside(trained: Trained, numbers: Mapping[str, float]) -> tuple[ClassMetrics, ...]:
    """The classes' rows of the run's `eval.json`, if that tells of the same evaluation."""
    try:
        found = json.loads(trained.path.with_name("eval.json").read_text(encoding="utf-8"))
        rows = tuple(ClassMetrics(**row) for row in found["classes"])
        same = all(found[name] == value for name, value in numbers.items())
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is another program's
        return ()
    classes = ClassNames(tuple(row.name for row in rows), tuple(row.id for row in rows))
    return rows if same and classes == trained.classes else ()
