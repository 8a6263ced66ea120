"""From a teacher's YAML to a teacher with weights."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm.models

from ..core.loading import load_arguments
from ..nn.backbone.dinov3_keys import convert_to_timm
from ..nn.backbone.vit import published_as
from ..nn.backbone.weight_files import READ_ERRORS, check_names_and_shapes, in_short, read_state_dict
from .dinov3_teacher import MODEL_NAMES, DinoV3Teacher

_log = logging.getLogger(__name__)


def load_teacher(config: Path, overrides: Sequence[str] = ()) -> DinoV3Teacher:
    """The teacher that a YAML file and `-u` overrides describe, filled with its weights.

    Raises:
        ValueError: A fault in the file (with its line), or weights that cannot be had.
    """
    return build_teacher(read_knobs(config, overrides))


def read_knobs(config: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The knobs of `DinoV3Teacher` that a YAML file gives.

    Args:
        config: A file whose keys are the knobs.
        overrides: Each `key=value`, over what the file says.

    Raises:
        ConfigError: An unknown key or a value of the wrong type; all faults at once, with their lines.
    """
    return load_arguments(config, overrides, DinoV3Teacher)


def build_teacher(knobs: Mapping[str, Any]) -> DinoV3Teacher:
    """A teacher of these knobs, filled with its weights.

    Raises:
        ValueError: Knobs that do not go together, or weights that cannot be had.
    """
    teacher = DinoV3Teacher(**knobs)
    load_weights(teacher)
    return teacher


def load_weights(teacher: DinoV3Teacher) -> None:
    """Fills the teacher, wholly and strictly, from its `checkpoint_path` or else timm's hub.

    Raises:
        ValueError: The weights cannot be had, or are another model's; the message says why and what to do.
    """
    path = teacher.checkpoint_path
    repository, _ = published_as(teacher.vit)
    source = path or f"huggingface.co/{repository}"
    try:
        if "sat493m" in Path(path or "").name:
            raise ValueError("it was trained on satellite pictures, with a mean and deviation of their own.")
        if path:
            state = read_state_dict(Path(path))
        else:
            state = dict(timm.models.load_state_dict_from_hf(repository, weights_only=True))
        named = convert_to_timm(state, teacher.vit, len(teacher.vit.blocks))
        check_names_and_shapes(named, teacher.vit.state_dict())
    except READ_ERRORS as error:
        raise ValueError(
            f"DinoV3Teacher: {source} gives no weights for model_type {teacher.model_type} "
            f"({in_short(error)}) Name the file of {MODEL_NAMES[teacher.model_type]} in checkpoint_path "
            "(weights/README.md says which and from where), or, with network, leave checkpoint_path out: "
            "timm then downloads its ungated copy."
        ) from error
    teacher.vit.load_state_dict(named)
    _log.info("DinoV3Teacher: %s filled from %s", MODEL_NAMES[teacher.model_type], source)
