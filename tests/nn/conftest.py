"""What the tests of networks share."""

import zlib

import numpy as np
import pytest
import torch

from src.structures import Targets


def fill(module):
    """Give every tensor of `module` tame random values that depend on its name alone."""
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or name.endswith("num_points_scale"):
            continue
        random = np.random.RandomState(zlib.crc32(name.encode()))
        values = torch.from_numpy(random.standard_normal(tuple(tensor.shape))).float()
        if tensor.dim() > 1:
            values = values / max(tensor[0].numel(), 1) ** 0.5
        elif name.endswith(("weight", "scale", "running_var")):
            values = 1 + 0.1 * values.abs()
        else:
            values = 0.1 * values
        tensor.copy_(values)
    return module


@pytest.fixture
def fill_by_name():
    return fill


@pytest.fixture
def make_targets():
    """Random objects: `make_targets((3, 0))` for two pictures with three objects and none."""

    def make(counts, num_classes=5, seed=0):
        generator = torch.Generator().manual_seed(seed)
        total = sum(counts)
        centres = torch.rand(total, 2, generator=generator) * 0.6 + 0.2
        sizes = torch.rand(total, 2, generator=generator) * 0.25 + 0.05
        labels = torch.randint(0, num_classes, (total,), generator=generator)
        shapes = tuple((100, 100) for _ in counts)
        return Targets(
            torch.cat((centres, sizes), 1), labels, tuple(counts), tuple(range(len(counts))), shapes
        )

    return make
