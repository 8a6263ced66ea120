"""The files that a configuration names: weights, saved features, and pictures with their annotations."""

from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch

from .. import assembly
from ..core import Experiment
from ..data import find_origin, read_annotations
from ..nn.backbone import HGNetv2, load_pretrained
from ..nn.backbone.vit import published_as
from ..teachers import DinoV3Teacher, FeatureStore, load_weights, sources
from ..teachers.dinov3_teacher import MODEL_NAMES
from .downloads import HUB_FILE, MODELS
from .findings import Outcome

TEACHER = "distillation.teacher"


class Weights(NamedTuple):
    """The weights that a backbone or a teacher asks for.

    Attributes:
        section: Its section in the configuration.
        model: The model's name.
        path: The file that is named, None for timm's hub.
        repository: Where timm's hub has them.
    """

    section: str
    model: str
    path: str | None
    repository: str


def weights_of(experiment: Experiment, backbone: Any) -> tuple[Weights, ...]:
    """What a run would load: the backbone's weights unless it starts from random ones, and the teacher's.

    Args:
        experiment: What is to be run.
        backbone: Its backbone, as `assembly` builds it.
    """
    found = []
    if backbone.pretrained:
        model = backbone.timm_name if isinstance(backbone, HGNetv2) else backbone.model_name
        repository = f"timm/{model}" if isinstance(backbone, HGNetv2) else published_as(backbone.vit)[0]
        found.append(Weights(type(backbone).__name__, model, backbone.checkpoint_path, repository))
    if experiment.distillation is not None and experiment.distillation.teacher is not None:
        with torch.device("meta"):
            teacher = _teacher(experiment)
        name = MODEL_NAMES[teacher.model_type]
        found.append(Weights(TEACHER, name, teacher.checkpoint_path, published_as(teacher.vit)[0]))
    return tuple(found)


def _teacher(experiment: Experiment) -> DinoV3Teacher:
    assert experiment.distillation is not None and experiment.distillation.teacher is not None
    stated = experiment.distillation.teacher
    return DinoV3Teacher(model_type=stated.model_type, checkpoint_path=stated.checkpoint_path)


def check_weights(weights: Weights, experiment: Experiment) -> Outcome:
    """Whether the weights are there, whole, and fit the experiment's backbone or teacher, by filling one.

    Raises:
        ValueError: They are damaged, or another model's.
    """
    if weights.path is None:
        cached = huggingface_hub.try_to_load_from_cache(weights.repository, HUB_FILE)
        if not isinstance(cached, str):
            told = f"{weights.model} is not in the hub's cache: timm fetches it when training starts"
            remedy = f"start with network, or name a file: {weights.section}.checkpoint_path"
            return Outcome("warn", told, remedy)
    elif not Path(weights.path).is_file():
        return Outcome("warn", f"{weights.path} is not there", _how_to_get(weights))
    if weights.section == TEACHER:
        load_weights(_teacher(experiment))
    else:
        load_pretrained(assembly.build_model(experiment).backbone)
    return Outcome("ok", f"{weights.path or 'in the cache of the hub'}: whole, and fits {weights.model}")


def _how_to_get(weights: Weights) -> str:
    keys = {published.model_name: key for key, published in MODELS.items()}
    if weights.model not in keys:
        return (
            f"put it there, or -u {weights.section}.checkpoint_path=null for timm's copy (weights/README.md)"
        )
    return (
        f"python tools/download_dinov3_weights.py --model {keys[weights.model]}, and name its file with -u "
        f"{weights.section}.checkpoint_path=...; or Meta's file (weights/README.md)"
    )


def check_features(folder: str, experiment: Experiment) -> Outcome:
    """Whether a teacher's features are there, and are those of the training pictures, where these are listed.

    Raises:
        ValueError: What is there is damaged, has no patches, or is another dataset's.
    """
    if not Path(folder).is_dir():
        return Outcome(
            "warn", f"{folder} is not there", "tools/extract_features.py writes it (docs/teacher.md)"
        )
    store = sources.SavedTeacher(FeatureStore.open(Path(folder))).saved
    told = f"{folder}: {len(store.shard_of)} pictures, {store.kind.model_type}"
    stated = experiment.train_dataloader.dataset
    try:
        origin = find_origin(experiment.data, stated, "train")
    except ValueError:  # of which `check_pictures` tells
        return Outcome("ok", told)
    if origin.source is None and not origin.ann_file.is_file():
        return Outcome("ok", told)
    listed = read_annotations(origin.ann_file, source=origin.source, drop_empty_boxes=stated.drop_empty_boxes)
    sources.check_pictures(store, listed.image_ids.tolist(), listed.file_names(), origin.ann_file)
    return Outcome("ok", f"{told}, all of {origin.ann_file} among them")


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
