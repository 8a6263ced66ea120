"""The page of a published model, README.md: what it finds, how well, how it was trained, whose licence."""

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..core import Experiment
from ..setup.licence import ADDRESS, SUMMARY
from .trained import Metrics, Trained

LIBRARY, TASK = "d-fine", "object-detection"
LICENCE_FILE = "LICENSE.md"
SHOWN = {"AP": "AP (IoU 0.50:0.95)", "AP50": "AP50", "AP75": "AP75"}


def model_page(
    name: str,
    trained: Trained,
    told: Mapping[str, Any],
    metrics: Metrics,
    *,
    license: str | None,
    with_license_file: bool,
) -> str:
    """The page's text: YAML for the hub, then Markdown for people.

    Args:
        name: What to call the model.
        trained: Where it comes from.
        told: What its checkpoint says beside its tensors.
        metrics: What is known of these weights.
        license: Under which licence its owner gives it away; None where that is not stated.
        with_license_file: Whether `LICENCE_FILE` lies beside the page.
    """
    height, width = trained.experiment.eval_spatial_size
    ended = f", after {told['epoch']} of {trained.experiment.epochs} epochs" if "epoch" in told else ""
    parts = (
        f"---\n{_for_the_hub(name, trained, metrics, license).to_yaml()}\n---",
        f"# {_plain(name)}",
        f"A D-FINE object detector of {trained.num_parameters:,} parameters for "
        f"{_counted(trained.classes.names)}. Its backbone is {trained.backbone}'s network. Pictures are "
        f"{'padded and ' if trained.experiment.keep_ratio else ''}resized to {height} x {width} (height x "
        "width); the model takes RGB in [0, 1] and normalises by itself.",
        f"## Use\n\n{_usage(name)}",
        f"## Classes\n\n{_classes(trained, metrics)}",
        f"## Metrics\n\n{_numbers(trained.experiment, metrics, ended)}",
        f"## Training\n\n{_training(trained.experiment, told)}",
        f"## Licence\n\n{_licence(trained, license, with_license_file)}",
    )
    return "\n\n".join(parts) + "\n"


def dataset_name(experiment: Experiment) -> str | None:
    """The pictures it was judged by, without where they lay."""
    stated = experiment.val_dataloader.dataset.ann_file
    if stated is not None:
        return PurePath(stated.replace("\\", "/")).stem
    if experiment.data is None:
        return None
    path = PurePath(experiment.data.replace("\\", "/"))
    return path.parent.name if path.suffix and path.parent.name else path.stem


def _for_the_hub(name: str, trained: Trained, metrics: Metrics, license: str | None) -> ModelCardData:
    data = dataset_name(trained.experiment) or "unknown"
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", data.casefold()).strip("-") or "unknown",
            dataset_name=data,
            dataset_split="val",
            metric_type=key,
            metric_name=shown,
            metric_value=metrics.numbers[key],
        )
        for key, shown in SHOWN.items()
        if metrics.numbers.get(key, -1) >= 0
    ]
    dinov3 = trained.is_dinov3
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[LIBRARY, *([trained.backbone.casefold()] if trained.pretrained else [])],
        model_name=name,
        eval_results=results or None,
        license="other" if dinov3 else license,
        license_name="dinov3-license" if dinov3 else None,
        license_link=ADDRESS if dinov3 else None,
    )


def _usage(name: str) -> str:
    return (
        "With the code of this project (its folder on `PYTHONPATH`, `pip install -r requirements.txt`):\n\n"
        "    from src.deploy import Detector\n\n"
        f"    detector = Detector.from_pretrained({name!r})\n"
        '    for result in detector("pictures/*.jpg", threshold=0.4):\n'
        "        print(result.scores, [result.names[label] for label in result.labels], result.boxes)\n\n"
        "Instead of a folder's path give the id of its repository, with `download=True` the first time; by "
        "itself nothing is downloaded. On the command line:\n\n"
        f"    python tools/inference/predict.py -m {shlex.quote(name)} -i PICTURES -o OUT"
    )


def _classes(trained: Trained, metrics: Metrics) -> str:
    head = ["label", "name", "id in the annotations"]
    rows = [
        [str(label), _plain(name), str(number)]
        for label, (name, number) in enumerate(zip(*trained.classes, strict=True))
    ]
    if metrics.classes:
        head += ["AP", "AP50", "objects"]
        for row, found in zip(rows, metrics.classes, strict=True):
            row += [_share(found.AP), _share(found.AP50), f"{found.num_objects:,}"]
    return _table(head, rows)


def _numbers(experiment: Experiment, metrics: Metrics, ended: str) -> str:
    if not metrics.numbers:
        return "The checkpoint holds no evaluation of these very weights."
    data = dataset_name(experiment)
    judged = f" on the evaluation pictures of {_plain(data)}" if data else ""
    table = _table(("metric", "value"), [(name, _share(value)) for name, value in metrics.numbers.items()])
    return f"COCO's numbers{judged}, as the training run measured them for these weights{ended}:\n\n{table}"


def _training(experiment: Experiment, told: Mapping[str, Any]) -> str:
    optimizer = experiment.optimizer
    rows = [
        ("data", _plain(dataset_name(experiment) or "not stated")),
        ("epochs", f"{told.get('epoch', 'unknown')} of {experiment.epochs}"),
        ("steps", str(told.get("step", "unknown"))),
        ("pictures a batch", str(experiment.train_dataloader.total_batch_size)),
        ("optimizer", f"{optimizer.type}, learning rate {optimizer.lr:g}"),
        ("mixed precision", "yes" if experiment.use_amp else "no"),
        ("weights", "their moving average" if told.get("weights") == "ema" else "the model's"),
        ("seed", str(experiment.seed)),
        *((str(library), str(version)) for library, version in told.get("versions", {}).items()),
    ]
    whole = (
        "`config.json` has the whole experiment under `config`; of paths outside its folder the last name."
    )
    return f"{_table(('', ''), rows)}\n\n{whole}"


def _licence(trained: Trained, license: str | None, with_license_file: bool) -> str:
    if trained.is_dinov3:
        copy = (
            f"The copy is in {LICENCE_FILE}."
            if with_license_file
            else "**No copy of it is in this folder: add one before you pass the folder on.**"
        )
        return f"These weights were trained from DINOv3's and are derived from them.\n\n{SUMMARY}\n\n{copy}"
    told = [
        f"Its owner gives the model away under: {license}." if license else "Its owner has stated no licence."
    ]
    if with_license_file:
        told.append(f"A licence's text lies beside this page, in {LICENCE_FILE}.")
    if trained.pretrained:
        told.append(
            f"Training began with {trained.backbone}'s published weights, which are under Apache-2.0."
        )
    else:
        told.append(
            "Its configuration says that the backbone began with random weights; whether the run was started "
            "from another checkpoint, whose licence would count, is not recorded."
        )
    if trained.experiment.distillation is not None:
        told.append(
            "It was trained to resemble a DINOv3 teacher. Whether that makes a model a derivative under the "
            f"[DINOv3 License]({ADDRESS}), Meta has not said."
        )
    return " ".join(told)


def _counted(names: tuple[str, ...]) -> str:
    return f"one class ({_plain(names[0])})" if len(names) == 1 else f"{len(names)} classes"


def _share(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"


def _plain(text: str) -> str:
    """Any text as one line of Markdown that means just itself."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
