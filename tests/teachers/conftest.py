"""What the teachers' tests share: a small teacher with lively weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from src.nn.backbone.vit import ViTShape
from src.teachers import DinoV3Teacher

SMALL = ViTShape(embed_dim=24, depth=2, num_heads=2, layer_scale=0.5)


@pytest.fixture
def small_teacher() -> Callable[..., DinoV3Teacher]:
    """Builds a small teacher of given knobs, the same weights each time."""

    def build(seed: int = 0, **knobs: Any) -> DinoV3Teacher:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return DinoV3Teacher(SMALL, **knobs)

    return build
