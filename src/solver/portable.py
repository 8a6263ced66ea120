"""Weights alone: a safetensors file with a JSON beside it, which any program can read."""

import hashlib
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ..core import dump_tree
from .seal import FORMAT, sha256_of

SUFFIX = ".safetensors"
HUB_WEIGHTS, HUB_CARD = "model.safetensors", "config.json"
"""The two files' names in a folder as the Hugging Face hub knows it; elsewhere both have one name."""

SEAL = "sha256"
TOLD = ("epoch", "step_in_epoch", "step", "classes", "best", "config", "versions")
"""What a checkpoint says beside its tensors, and the JSON with it."""


def sealed_card(card: Mapping[str, Any], tensors: bytes) -> str:
    """The JSON's text: `card` with the checksums of itself and of the safetensors file's content."""
    told = {"format": FORMAT, **card}
    seal = _checksums(told, hashlib.sha256(tensors).hexdigest())
    return json.dumps({**told, SEAL: seal}, indent=1, ensure_ascii=False) + "\n"


def read_portable(path: Path) -> dict[str, Any]:
    """What `path` and the JSON beside it hold, as a checkpoint; without the JSON it has weights alone.

    Raises:
        ValueError: One of the files is damaged, or an entry of the JSON is not what a checkpoint has there.
    """
    card = read_card(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error
    told = {key: card[key] for key in TOLD if card.get(key) is not None}
    if SEAL not in card:
        refuse_wrong_types(told, card_path(path))
    if isinstance(told.get("config"), dict):
        told["config"] = dump_tree(told["config"])
    if card.get("weights") == "ema":
        return {"ema": {"module": tensors}, **told}
    return {"model": tensors, **told}


def card_path(path: Path) -> Path:
    """Where the JSON of the safetensors file at `path` is: under its name, or as the hub calls it."""
    beside = path.with_suffix(".json")
    return path.with_name(HUB_CARD) if path.name == HUB_WEIGHTS and not beside.is_file() else beside


def read_card(path: Path) -> dict[str, Any]:
    """The JSON beside the safetensors file at `path`, after both were compared with its checksums.

    It has none (`SEAL`) where another program or format 1 wrote it, and is empty where there is no JSON.

    Raises:
        ValueError: One of the files is damaged.
    """
    beside = card_path(path)
    if not beside.is_file():
        return {}
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{beside}: cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(card, dict):
        raise ValueError(f"{beside}: holds a {type(card).__name__}, no object; copy or remove it")
    _refuse_damage(path, beside, card)
    return card


def refuse_wrong_types(told: Mapping[str, Any], source: Path) -> None:
    """Look at what somebody may have edited, or another program written.

    Args:
        told: What a checkpoint says beside its tensors.
        source: The file that says it, for the message.

    Raises:
        ValueError: An entry of `TOLD` is not what a checkpoint of ours has there.
    """
    for key, (kinds, words) in _KINDS.items():
        value = told.get(key)
        if value is None:
            continue
        fits = _is_a(value, *kinds)
        if key == "classes" and fits:
            names, ids = value.get("names", []), value.get("ids", [])
            fits = _is_a(names, list, tuple) and _is_a(ids, list, tuple) and len(names) == len(ids)
            fits = fits and all(_is_a(one, str) for one in names) and all(_is_a(one, int) for one in ids)
        if key == "best" and fits:
            fits = all(_is_a(one, int, float) for one in value.values())
        if not fits:
            shown = textwrap.shorten(repr(value), 100, placeholder="...")
            raise ValueError(
                f"{source}: '{key}' is {shown}, and has to be {words}; correct it, or copy the file again"
            )


def _is_a(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)  # which Python takes for an int


_COUNT = ((int,), "a whole number")
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "epoch": _COUNT,
    "step_in_epoch": _COUNT,
    "step": _COUNT,
    "classes": ((dict,), "an object with 'names', a list of texts, and 'ids', as many whole numbers"),
    "best": ((dict,), "an object of numbers"),
    "config": ((dict, str), "an object or a text"),
    "versions": ((dict,), "an object of texts"),
}
"""Of each entry in `TOLD` what it may be, and that in words."""


def _refuse_damage(path: Path, beside: Path, card: dict[str, Any]) -> None:
    stated = card.get(SEAL)
    if stated is None and card.get("format") != FORMAT:
        return
    found = _checksums({key: value for key, value in card.items() if key != SEAL}, sha256_of(path))
    if stated != found:
        card_is_whole = isinstance(stated, dict) and stated.get("card") == found["card"]
        raise ValueError(
            f"{path if card_is_whole else beside}: is damaged, it differs from its checksum in "
            f"{beside.name}; copy both files again. Where you edited {beside.name} yourself, remove its "
            f"entries 'format' and '{SEAL}'"
        )


def _checksums(card: Mapping[str, Any], tensors: str) -> dict[str, str]:
    text = json.dumps(json.loads(json.dumps(card)), sort_keys=True)  # the same for any layout of the file
    return {"card": hashlib.sha256(text.encode()).hexdigest(), "tensors": tensors}
