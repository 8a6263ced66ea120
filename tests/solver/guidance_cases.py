"""A tiny teacher, for the tests of guidance."""

from collections.abc import Mapping
from typing import Any

import torch

from src.nn.backbone.vit import ViTShape
from src.teachers import DinoV3Teacher

TEACHER_DIM = 24
DISTILLATION: dict[str, Any] = {"teacher": {"model_type": "vit_base"}, "weight": 2.0}


def tiny_teacher(knobs: Mapping[str, Any]) -> DinoV3Teacher:
    """The same small weights each time, in place of the named model's."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return DinoV3Teacher(ViTShape(TEACHER_DIM, depth=2, num_heads=2, layer_scale=1.0), **knobs)
