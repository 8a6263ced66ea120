import random
from pathlib import Path

import numpy as np
import torch

from src.solver.checkpoint import read_checkpoint, save_checkpoint
from src.solver.random_state import random_state, set_random_state
from src.solver.resume import stored_seed


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def test_draws_go_on_from_a_file_as_they_would_have(tmp_path: Path) -> None:
    draw()  # one normal number of each pair is kept for the next call
    save_checkpoint(tmp_path / "a.pth", {"rng": random_state()})
    expected = [draw(), draw()]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert draw() != expected[0]
    set_random_state(read_checkpoint(tmp_path / "a.pth")["rng"])
    assert [draw(), draw()] == expected


def test_a_runs_seed_is_found_in_its_config() -> None:
    assert stored_seed({"config": "epochs: 3\nseed: 77\nsync_bn: true\n"}) == 77
    assert stored_seed({"config": "epochs: 3\nseed: null\n"}) is None
    assert stored_seed({}) is None
