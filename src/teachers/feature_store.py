"""Features of pictures in a folder: shards in the safetensors format, and an index of them.

A shard holds some pictures whole, and says by itself whose features they are: it appears under its name when
it is complete, so that a folder is sound whenever its writer is killed. The index spares a reader the headers
of the shards that it lists; shards that it does not list are found all the same.

Legend: B pictures, N patches of a picture, D embedding width.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_log = logging.getLogger(__name__)

INDEX = "index.json"
SHARDS = "features-*.safetensors"
FORMAT = 2
PATCH = 16
Dtype = Literal["float16", "bfloat16"]


class FeatureKind(NamedTuple):
    """What all features of a folder have in common.

    Attributes:
        model_type: The teacher's.
        model_hash: The teacher's; two sets of weights differ in it.
        size_hw: (height, width) that the pictures had.
        dtype: What the numbers are saved as.
        feature_dims: D of each feature that is there.
    """

    model_type: str
    model_hash: str
    size_hw: tuple[int, int]
    dtype: Dtype
    feature_dims: dict[str, int]

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch has it."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float16

    @property
    def grid_hw(self) -> tuple[int, int]:
        """(h, w) of the patches; N = h * w, row by row."""
        return -(-self.size_hw[0] // PATCH), -(-self.size_hw[1] // PATCH)

    def key(self, image_id: str, feature: str) -> str:
        """How a picture's feature is called in its shard."""
        height, width = self.size_hw
        return f"{image_id}/{height}x{width}/{self.model_hash}/{feature}"

    def differences(self, other: "FeatureKind") -> str:
        """What `other` has otherwise, in words; "" where they are the same."""
        own, others = self._asdict(), other._asdict()
        return "; ".join(
            f"{name} {own[name]}, not {others[name]}" for name in own if own[name] != others[name]
        )

    @classmethod
    def parse(cls, stated: dict[str, Any]) -> "FeatureKind":
        """From what `_asdict` gave, by way of JSON.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        values = {name: stated[name] for name in cls._fields}
        height, width = values.pop("size_hw")
        return cls(size_hw=(int(height), int(width)), **values)


class FeatureStore:
    """Reads the features of a folder; `open` makes one.

    Attributes:
        kind: What they have in common.
        shard_of: The shard that holds a picture, by the picture's id.
        file_names: The pictures' files, by their ids.
    """

    def __init__(self, folder: Path, kind: FeatureKind, shards: Mapping[str, Mapping[str, str]]) -> None:
        self.folder = folder
        self.kind = kind
        self.shard_of = {image_id: shard for shard, held in shards.items() for image_id in held}
        self.file_names = all_pictures(shards)
        self._shards: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """The features that are in `folder` now; more may be written later.

        Args:
            folder: Where `FeatureWriter` wrote.

        Raises:
            ValueError: There are no features in the folder, or those of several kinds.
        """
        kind, listed = read_index(folder)
        return cls(folder, kind, find_shards(folder, kind, listed))

    def read(self, image_ids: Sequence[int | str]) -> dict[str, Tensor]:
        """The features of pictures, in their order, on the CPU and of the type that they were saved in.

        Returns:
            `cls_token` [B, D] and `patch_tokens` [B, N, D], or the one of them that was saved.

        Raises:
            ValueError: A picture has no features here, or its shard is damaged.
        """
        names = [str(image_id) for image_id in image_ids]
        missing = [name for name in names if name not in self.shard_of]
        if missing:
            raise ValueError(
                f"{self.folder} has no features of {len(missing)} pictures, {', '.join(missing[:5])} among "
                f"them; it has those of {len(self.shard_of)}. Run tools/extract_features.py on these "
                "pictures with the same folder: it adds what is missing."
            )
        try:
            rows = [[self._tensor(name, feature) for name in names] for feature in self.kind.feature_dims]
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.folder}: a shard cannot be read ({error}). Run tools/extract_features.py again: it "
                "finds damaged shards and writes them anew."
            ) from error
        return dict(zip(self.kind.feature_dims, map(torch.stack, rows), strict=True))

    def _tensor(self, image_id: str, feature: str) -> Tensor:
        name = self.shard_of[image_id]
        if name not in self._shards:
            self._shards[name] = safe_open(self.folder / name, framework="pt")
        tensor: Tensor = self._shards[name].get_tensor(self.kind.key(image_id, feature))
        return tensor


def all_pictures(shards: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """File names by id of the pictures of all shards."""
    return {image_id: name for held in shards.values() for image_id, name in held.items()}


def read_index(folder: Path) -> tuple[FeatureKind, dict[str, dict[str, str]]]:
    """What the features of a folder have in common, and the pictures of each shard that its index lists.

    Returns:
        The kind, and by shard the pictures' file names by their ids.

    Raises:
        ValueError: There is no index, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder} holds no features: no {INDEX}; tools/extract_features.py writes it.")
    try:
        content = json.loads(path.read_bytes())
        if content["format"] == FORMAT:
            return FeatureKind.parse(content), {name: dict(held) for name, held in content["shards"].items()}
        found = int(content["format"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete this one file and run "
            "tools/extract_features.py again: it makes the index anew and keeps the features."
        ) from error
    raise ValueError(
        f"{folder} holds features of format {found}, and this program reads {FORMAT} (format 1 does not say "
        "whose they are). Delete the folder and run tools/extract_features.py again."
    )


def find_shards(
    folder: Path, kind: FeatureKind, listed: Mapping[str, Mapping[str, str]]
) -> dict[str, Mapping[str, str]]:
    """The pictures of all shards on the disk, by shard: file names by id.

    Args:
        folder: Where they lie.
        kind: What they must hold.
        listed: Pictures of shards that are not opened. Damaged ones of the others are left out with a
            warning.

    Raises:
        ValueError: A shard holds features of another kind.
    """
    paths = sorted(folder.glob(SHARDS))
    return {p.name: listed[p.name] if p.name in listed else _pictures_in(p, kind) for p in paths}


def _pictures_in(path: Path, kind: FeatureKind) -> dict[str, str]:
    """File names by id of the pictures in a shard; none, and a warning, where it is damaged."""
    try:
        with safe_open(path, framework="pt") as shard:
            content = json.loads(shard.metadata()["features"])
            found, file_names = FeatureKind.parse(content["kind"]), dict(content["file_names"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s is damaged and left out (%s)", path, error)
        return {}
    if different := found.differences(kind):
        raise ValueError(
            f"{path} holds other features than are expected in its folder: {different}. A folder holds those "
            "of one model at one size: keep each in a folder of its own."
        )
    return file_names
