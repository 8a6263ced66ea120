"""Whether this machine can train: libraries, configurations, weights, pictures, a step, an export."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import timm
import torch
import torchvision
from torch import Tensor

from .. import assembly
from ..core import Experiment
from ..nn.backbone.vit import ViTShape, build_vit
from ..solver.guides import check_anchored
from .findings import Finding, Outcome, attempt
from .needs import Pictures, Weights, check_features, check_pictures, check_weights, pictures_of, weights_of
from .rehearsal import export_and_compare, run_at_sizes, train_a_step

T = TypeVar("T")

CONFIGS = "configs/dfine"
REHEARSED = {
    False: f"{CONFIGS}/dfine_dinov3_s_coco.yml",
    True: f"{CONFIGS}/dfine_dinov3_demo.yml",
}  # by `quick`
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Built(NamedTuple):
    """A configuration that builds.

    Attributes:
        name: What the table calls it.
        experiment: What it says.
        kind: Levels and tensors of its backbone: those that agree in them run alike.
        weights: What its backbone and its teacher ask for.
        features: Folder of a teacher's saved features, if it learns from them.
        pictures: What it trains and evaluates on.
    """

    name: str
    experiment: Experiment
    kind: tuple[object, ...]
    weights: tuple[Weights, ...]
    features: str | None
    pictures: tuple[Pictures, ...]


def check_all(
    root: Path, named: Sequence[Path], overrides: Sequence[str] = (), *, quick: bool
) -> Iterator[Finding]:
    """Check libraries, configurations and what these need; one failure stops no other check.

    Args:
        root: The repository.
        named: Configurations to check, to train for a step and to export; without any, all of the repository
            are checked, and one is trained and exported.
        overrides: Each `key=value`, over what every one of them says.
        quick: Whether to rehearse with small pictures.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield attempt("torch", check_torch, device)
    yield attempt("torchvision", check_torchvision, device)
    yield attempt("timm", check_timm)
    built: dict[Path, Built] = {}
    for path in named or _whole_configs(root / CONFIGS):
        yield attempt(f"config {path.stem}", check_config, path, overrides, built)
    asking = [(weights, one) for one in built.values() for weights in one.weights]
    for weights, one in _distinct(asking, lambda pair: pair[0]):
        name = f"{weights.section} {weights.model.partition('.')[0]}"
        yield attempt(f"weights {name}", check_weights, weights, one.experiment)
    reading = [one for one in built.values() if one.features]
    for one in _distinct(reading, lambda one: (one.features, one.pictures[0])):
        yield attempt("features", check_features, one.features, one.experiment)
    for one in _distinct(built.values(), lambda one: one.pictures):
        yield attempt(f"pictures {one.name}", check_pictures, one.pictures)
    for one in _distinct(built.values(), lambda one: one.kind):
        yield attempt(f"sizes {one.name}", run_at_sizes, one.experiment, device, quick)
    for one in [built[path] for path in named or [root / REHEARSED[quick]] if path in built]:
        yield attempt(f"step {one.name}", train_a_step, one.experiment, device, quick)
        yield attempt(f"ONNX {one.name}", check_export, one, quick)


def _whole_configs(folder: Path) -> list[Path]:
    """The configurations below a folder, without the fragments that they include."""
    return [path for path in sorted(folder.rglob("*.yml")) if "include" not in path.relative_to(folder).parts]


def _distinct(several: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """The first of those that agree in `key`."""
    first: dict[object, T] = {}
    for one in several:
        first.setdefault(key(one), one)
    return list(first.values())


def check_torch(device: torch.device) -> Outcome:
    """What torch computes on, tried out by a matrix product and a convolution."""
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(6, 6)).to(device)
    layer(torch.ones(1, 3, 8, 8, device=device)).sum().backward()
    if device.type == "cuda":
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        told = f"CUDA {torch.version.cuda}, cuDNN {cudnn}, {', '.join(gpus)}"
        return Outcome("ok", f"{torch.__version__}, {told}")
    if torch.version.cuda is None:
        remedy = "for a GPU, install torch built for it (pytorch.org); a CPU serves for trying out"
        return Outcome("warn", f"{torch.__version__}, built without CUDA", remedy)
    remedy = "see that nvidia-smi works and its driver takes that CUDA; a CPU serves for trying out"
    return Outcome("warn", f"{torch.__version__}, built for CUDA {torch.version.cuda}, sees no GPU", remedy)


def check_torchvision(device: torch.device) -> Outcome:
    """Whether torchvision's compiled part works with this torch."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]], device=device)
    kept: Tensor = torchvision.ops.nms(boxes, boxes[:, 2], 0.5)
    if len(kept) != 1:
        raise ValueError(f"{torchvision.__version__} keeps {len(kept)} of two equal boxes; install it anew")
    return Outcome("ok", f"{torchvision.__version__}, its compiled part runs")


def check_timm() -> Outcome:
    """Whether timm builds a DINOv3 ViT."""
    with torch.device("meta"):
        build_vit("dinov3_small", ViTShape())
    return Outcome("ok", f"{timm.__version__}, builds DINOv3's ViT-S/16")


def check_config(path: Path, overrides: Sequence[str], built: dict[Path, Built]) -> Outcome:
    """Build all that the configuration describes but its pictures; `built` then has it.

    Raises:
        ValueError: It cannot be built; all faults of the file at once.
    """
    experiment = assembly.load(path, overrides)
    model = assembly.build_model(experiment)
    assembly.build_criterion(experiment)
    assembly.build_postprocessor(experiment)
    backbone: Any = model.backbone
    check_anchored(experiment, backbone)
    shapes = ((name, value.shape) for name, value in backbone.state_dict().items())
    built[path] = Built(
        name=path.stem,
        experiment=experiment,
        kind=(type(backbone), tuple(backbone.levels), *shapes),
        weights=weights_of(experiment, backbone),
        features=experiment.distillation.features if experiment.distillation else None,
        pictures=pictures_of(experiment),
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    return Outcome("ok", f"{count:,} parameters, {type(backbone).__name__}")


def check_export(one: Built, quick: bool) -> Outcome:
    """Export and compare, where the packages for it are installed."""
    missing = [name for name in EXPORT_PACKAGES if find_spec(name) is None]
    if missing:
        remedy = "pip install -r requirements-export.txt"
        return Outcome("warn", f"not tried: {', '.join(missing)} missing", remedy)
    return export_and_compare(one.experiment, one.name, quick)
