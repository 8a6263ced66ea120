"""Seeds that are pure functions of numbers, so that no draw depends on which process makes it, or when."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """A 63-bit seed for these non-negative numbers in this order; neighbours give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def torch_cpu_seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global CPU generator runs from `seed`; after it, as if nothing had been drawn.

    torchvision's transforms draw from that generator and take no other. The generators of GPUs are left
    alone.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
