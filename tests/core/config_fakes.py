"""Small classes that stand for the model's parts, and a configuration that uses them."""

from pathlib import Path
from typing import Literal, Protocol

from src.core import Experiment, load_experiment


class Module:
    pass


class Shaped(Protocol):
    def shape(self) -> int: ...


class Net(Module):
    def __init__(self, backbone: Module, head: "Head", *, scale: float = 1.0) -> None: ...


class BackboneA(Module):
    def __init__(
        self, *, depth: int = 3, channels: tuple[int, ...] = (1, 2), name: str | None = None
    ) -> None: ...


class BackboneB(Module):
    def __init__(self, *, mode: Literal["x", "y"] = "x") -> None: ...


class Head(Module):
    def __init__(
        self, levels: tuple[int, ...], num_classes: int, *, hidden_dim: int = 256, rate: float
    ) -> None: ...


class Matcher:
    def __init__(self, *, alpha: float = 0.25, costs: dict[str, float] | None = None) -> None: ...


class Losses:
    def __init__(self, matcher: Matcher, num_classes: int, *, names: tuple[str, ...] = ("a",)) -> None: ...


class Post:
    def __init__(self, num_classes: int, *, top: int = 300) -> None: ...


class Crop:
    def __init__(self, *, p: float = 0.5) -> None: ...


class Resize:
    def __init__(self, *, size: tuple[int, int] | None = None) -> None: ...


COMPONENTS = {c.__name__: c for c in (Net, BackboneA, BackboneB, Head, Matcher, Losses, Post)}
TRANSFORMS = {"Crop": Crop, "Resize": Resize}

BASE = """\
model: Net
criterion: Losses
postprocessor: Post
num_classes: 3
epochs: 10
Net: {backbone: BackboneA, head: Head}
BackboneA: {depth: 6}
Head: {rate: 1e-4}
Losses: {matcher: {type: Matcher, alpha: 1, costs: {x: 2}}}
optimizer:
  lr: 1e-3
  params:
    - {params: bias$, weight_decay: 0}
train_dataloader:
  dataset:
    img_folder: a
    ann_file: b.json
    transforms:
      ops:
        - {type: Crop, p: 1}
        - {type: Resize, size: [64, 32]}
      policy: {ops: [Crop]}
  total_batch_size: 4
  shuffle: True
val_dataloader:
  dataset: {img_folder: c, ann_file: d.json}
  total_batch_size: 2
  shuffle: False
"""


def write(folder: Path, text: str = "__include__: base.yml\n", base: str = BASE) -> Path:
    """`base.yml` with the parts above, and `run.yml`, which is returned."""
    (folder / "base.yml").write_text(base)
    (folder / "run.yml").write_text(text)
    return folder / "run.yml"


def load(path: Path, *overrides: str) -> Experiment:
    return load_experiment(path, overrides, components=COMPONENTS, transforms=TRANSFORMS)
