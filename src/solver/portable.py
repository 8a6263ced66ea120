"""Weights alone: a safetensors file with a JSON of the same name beside it, which any program can read."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

SUFFIX = ".safetensors"
TOLD = ("epoch", "step", "classes", "best", "config", "versions")
"""What a checkpoint says beside its tensors, and the JSON with it."""


def read_portable(path: Path) -> dict[str, Any]:
    """What `path` and the JSON beside it hold, as a checkpoint; without the JSON it has weights alone.

    Raises:
        ValueError: One of the files is damaged.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error
    beside = path.with_suffix(".json")
    card: Any = {}
    if beside.is_file():
        try:
            card = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{beside}: cannot be read as JSON ({error}); copy it again") from error
        if not isinstance(card, dict):
            raise ValueError(f"{beside}: holds a {type(card).__name__}, no object; copy or remove it")
    told = {key: card[key] for key in TOLD if card.get(key) is not None}
    if card.get("weights") == "ema":
        return {"ema": {"module": tensors}, **told}
    return {"model": tensors, **told}
