"""The files that a configuration names: its backbone's weights, and pictures with their annotations."""

from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub

from .. import assembly
from ..core import Experiment
from ..data import find_origin
from ..nn.backbone import HGNetv2, load_pretrained
from ..nn.backbone.vit import published_as
from .downloads import HUB_FILE, MODELS
from .findings import Outcome


class Weights(NamedTuple):
    """The weights that a backbone asks for.

    Attributes:
        section: The backbone's section in the configuration.
        model: The model's name there.
        path: The file that is named, None for timm's hub.
        repository: Where timm's hub has them.
    """

    section: str
    model: str
    path: str | None
    repository: str


def weights_of(backbone: Any) -> Weights | None:
    """What `load_pretrained` would look for, None where the backbone starts from random weights."""
    if not backbone.pretrained:
        return None
    if isinstance(backbone, HGNetv2):
        model, repository = backbone.timm_name, f"timm/{backbone.timm_name}"
    else:
        model, repository = str(backbone.model_name), published_as(backbone.vit)[0]
    path = backbone.checkpoint_path
    return Weights(type(backbone).__name__, model, None if path is None else str(path), repository)


def check_weights(weights: Weights, experiment: Experiment) -> Outcome:
    """Whether the weights are there, whole, and fit the experiment's backbone, by filling one.

    Raises:
        ValueError: They are damaged, or another model's.
    """
    if weights.path is None:
        cached = huggingface_hub.try_to_load_from_cache(weights.repository, HUB_FILE)
        if not isinstance(cached, str):
            told = f"{weights.model} is not in the hub's cache: timm fetches it when training starts"
            return Outcome(
                "warn", told, f"start with network, or name a file: {weights.section}.checkpoint_path"
            )
    elif not Path(weights.path).is_file():
        return Outcome("warn", f"{weights.path} is not there", _how_to_get(weights))
    load_pretrained(assembly.build_model(experiment).backbone)
    return Outcome("ok", f"{weights.path or 'in the cache of the hub'}: whole, and fits {weights.model}")


def _how_to_get(weights: Weights) -> str:
    keys = {published.model_name: key for key, published in MODELS.items()}
    if weights.model not in keys:
        return (
            f"put it there, or -u {weights.section}.checkpoint_path=null to take timm's (weights/README.md)"
        )
    return (
        f"python tools/download_dinov3_weights.py --model {keys[weights.model]} and the -u that it names, or "
        "Meta's file (weights/README.md)"
    )


class Pictures(NamedTuple):
    """Pictures and annotations that a configuration names.

    Attributes:
        img_folder: Folder of the pictures.
        ann_file: Their annotations.
        fault: Why they cannot be found, "" otherwise.
    """

    img_folder: Path | None
    ann_file: Path | None
    fault: str = ""


def pictures_of(experiment: Experiment) -> tuple[Pictures, ...]:
    """The pictures to train on and to evaluate on."""
    found = []
    for split, loader in (("train", experiment.train_dataloader), ("val", experiment.val_dataloader)):
        try:
            origin = find_origin(experiment.data, loader.dataset, split)
        except ValueError as error:
            found.append(Pictures(None, None, str(error)))
        else:
            found.append(Pictures(origin.img_folder, origin.ann_file))
    return tuple(found)


def check_pictures(several: tuple[Pictures, ...]) -> Outcome:
    """Whether folders and annotation files are there; they are not read."""
    paths = [path for one in several for path in (one.img_folder, one.ann_file) if path is not None]
    missing = [str(path) for path in paths if not path.exists()]
    faults = [pictures.fault for pictures in several if pictures.fault]
    if missing:
        faults.append(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there")
    if not faults:
        return Outcome("ok", ", ".join(map(str, paths)))
    return Outcome(
        "warn",
        "; ".join(faults),
        "put the dataset there, or name yours: -u data=/path/to/dataset, or {train,val}_dataloader.dataset."
        "img_folder and ann_file",
    )
