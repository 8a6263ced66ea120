"""What no single value can show: values that do not go together."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .data_settings import LoaderSettings
from .data_source import PATHS
from .guidance_settings import DistillationSettings
from .problems import Place, Problems
from .settings import OptimizerSettings, SchedulerSettings, StageSettings
from .yaml_tree import Items, Node, Section


def check_together(values: Mapping[str, Any], tree: Section, problems: Problems) -> None:
    """Checks the values of the top level against each other; keys that were refused are absent.

    Args:
        values: Bound values by top-level key.
        tree: Where they were written.
        problems: Takes the faults.
    """
    check = _Checks(values, tree, problems)
    check.stage_order(values.get("stages", ()), values.get("epochs"))
    check.stage_means(values.get("stages", ()))
    check.groups(values.get("optimizer"))
    check.scheduler(values.get("lr_scheduler"))
    check.whole_evaluation(values.get("val_dataloader"))
    check.distillation(values.get("distillation"))
    for name in ("train_dataloader", "val_dataloader"):
        check.policy(name, values.get(name))
        check.pictures(name, values.get(name))


class _Checks:
    def __init__(self, values: Mapping[str, Any], tree: Section, problems: Problems) -> None:
        self._values = values
        self._tree = tree
        self._problems = problems

    def _fault(self, path: str, message: str) -> None:
        self._problems.add(place_of(self._tree, path), f"{path} {message}")

    def stage_order(self, stages: Sequence[StageSettings], epochs: int | None) -> None:
        if epochs is None:
            return
        starts = [stage.start if stage.start >= 0 else epochs + stage.start for stage in stages]
        if starts and starts[0] != 0:
            self._fault("stages.0.start", f"must be 0, not {stages[0].start}: the first stage starts the run")
        for index, (before, start) in enumerate(pairwise(starts), start=1):
            if start <= before:
                self._fault(
                    f"stages.{index}.start",
                    f"is epoch {start} of {epochs}, not after the stage before it ({before}); sort them",
                )

    def stage_means(self, stages: Sequence[StageSettings]) -> None:
        train = self._values.get("train_dataloader")
        no_policy = isinstance(train, LoaderSettings) and train.dataset.transforms.policy is None
        no_scales = "multi_scale" not in self._tree.entries or self._values.get("multi_scale", 0) is None
        strong = True
        for index, stage in enumerate(stages):
            strong = strong if stage.strong_augmentation is None else stage.strong_augmentation
            for name in ("mosaic", "mixup", "copyblend"):
                if getattr(stage, name) and not strong:
                    self._fault(f"stages.{index}.{name}", "needs strong_augmentation: True; it is part of it")
            if stage.multi_scale and no_scales:
                self._fault(
                    f"stages.{index}.multi_scale", "needs the sizes: `multi_scale: {base_size_repeat: 3}`"
                )
            if stage.strong_augmentation and no_policy:
                self._fault(
                    f"stages.{index}.strong_augmentation",
                    "needs the transforms' names: train_dataloader.dataset.transforms.policy.ops",
                )

    def groups(self, optimizer: OptimizerSettings | None) -> None:
        for index, rule in enumerate(optimizer.params if optimizer is not None else ()):
            path = f"optimizer.params.{index}"
            try:
                re.compile(rule.params)
            except re.error as error:
                self._fault(f"{path}.params", f"is not a regular expression: {error}")
            if rule.lr is None and rule.weight_decay is None:
                self._fault(path, "changes nothing; give it lr or weight_decay")

    def scheduler(self, scheduler: SchedulerSettings | None) -> None:
        if scheduler is None:
            return
        owners = {"milestones": "MultiStepLR", "flat_epochs": "FlatCosineLR", "no_aug_epochs": "FlatCosineLR"}
        node = self._tree.entries["lr_scheduler"].node if "lr_scheduler" in self._tree.entries else None
        written = node.entries if isinstance(node, Section) else {}
        for key, owner in owners.items():
            if key in written and scheduler.type != owner and getattr(scheduler, key) not in (None, (), 0):
                self._fault(f"lr_scheduler.{key}", f"is a knob of {owner}; {scheduler.type} does not use it")

    def whole_evaluation(self, loader: LoaderSettings | None) -> None:
        for key in ("shuffle", "drop_last"):
            if loader is not None and getattr(loader, key):
                self._fault(
                    f"val_dataloader.{key}", "must be false: each picture is evaluated once, in order"
                )

    def distillation(self, settings: DistillationSettings | None) -> None:
        if settings is None:
            return
        if (settings.teacher is None) == (settings.features is None):
            self._fault(
                "distillation",
                "needs one of the two: `teacher: {model_type: vit_base}`, who is asked in every step, or "
                "`features:`, the folder of what was saved of it",
            )
        aim, tolerance = settings.share, settings.share_tolerance
        if aim is not None and not 0 < aim - tolerance <= aim + tolerance < 1:
            self._fault(
                "distillation.share_tolerance",
                f"is {tolerance:g}: {aim:g} (distillation.share) plus and minus it must lie between 0 and 1",
            )

    def policy(self, name: str, loader: LoaderSettings | None) -> None:
        if loader is None or loader.dataset.transforms.policy is None:
            return
        present = {op.type for op in loader.dataset.transforms.ops}
        for index, op in enumerate(loader.dataset.transforms.policy.ops):
            if op not in present:
                self._fault(
                    f"{name}.dataset.transforms.policy.ops.{index}",
                    f"names {op}, which is not among the transforms ({', '.join(sorted(present)) or 'none'})",
                )

    def pictures(self, name: str, loader: LoaderSettings | None) -> None:
        if loader is None:
            return
        paths = {key: getattr(loader.dataset, key) for key in PATHS}
        if self._values.get("data") is not None and not any(paths.values()):
            return
        for key in [key for key, path in paths.items() if path is None]:
            self._fault(
                f"{name}.dataset.{key}", "is required and not given; or name a dataset: data=/path/to/dataset"
            )


def place_of(tree: Section, path: str) -> Place:
    """Where the value at a dotted path was written, or the nearest value around it."""
    node: Node = tree
    for key in path.split("."):
        if isinstance(node, Section) and key in node.entries:
            node = node.entries[key].node
        elif isinstance(node, Items) and key.isdecimal() and int(key) < len(node.items):
            node = node.items[int(key)]
        else:
            break
    return node.place
