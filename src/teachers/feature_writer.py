"""Writes the folders that `feature_store.py` reads: each shard is there whole, or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .feature_store import FORMAT, INDEX, SHARDS, FeatureKind, find_shards, read_index

UNFINISHED = ".unfinished-"


class FeatureWriter:
    """Adds features to a folder.

    Several processes may write pictures of their own into one folder at the same time.

    Attributes:
        folder: The folder, made where it is missing.
        kind: What its features have in common.
        stored: Ids of the pictures that are in it.
    """

    def __init__(self, folder: Path, kind: FeatureKind) -> None:
        """Look at what is in the folder.

        Raises:
            ValueError: It holds features of another kind, or cannot be written to.
        """
        self.folder = folder
        self.kind = kind
        indexed = (folder / INDEX).is_file()
        if indexed and (different := read_index(folder)[0].differences(kind)):
            raise ValueError(
                f"{folder} holds other features than are to be written: {different}. Give these a folder of "
                "their own (feature_output_dir), or delete that one."
            )
        self.stored = set(find_shards(folder, kind, {}))  # damaged shards are not, whatever the index says
        if not indexed:
            self._write_index({})

    def write(self, image_ids: Sequence[int | str], features: Mapping[str, Tensor]) -> None:
        """Saves pictures as one shard.

        Args:
            image_ids: B ids, of pictures that are not in the folder.
            features: [B, ...] of each feature, on any device, of any floating type.

        Raises:
            ValueError: An id stands twice, a number is too large for the type, or the disk refuses.
        """
        names = [str(image_id) for image_id in image_ids]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"image id {twice[0]} stands twice; give each picture an id of its own.")
        tensors = {}
        for feature in self.kind.feature_dims:
            rows = features[feature].detach().to(self.kind.torch_dtype).cpu()
            for name, row in zip(names, rows, strict=True):
                if not row.isfinite().all():
                    raise ValueError(
                        f"picture {name}: its {feature} has numbers that {self.kind.dtype} cannot hold. Take "
                        "bfloat16; if that does not help, the weights are broken."
                    )
                tensors[self.kind.key(name, feature)] = row.clone()
        content = json.dumps({"kind": self.kind._asdict(), "image_ids": names})
        digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
        self._put(SHARDS.replace("*", digest), lambda path: save_file(tensors, path, {"features": content}))
        self.stored.update(names)

    def finish(self) -> None:
        """Writes the index of all shards that are there, also those of other processes."""
        shards: dict[str, list[str]] = {}
        for image_id, name in find_shards(self.folder, self.kind, {}).items():
            shards.setdefault(name, []).append(image_id)
        self._write_index(shards)

    def sweep(self) -> None:
        """Removes what killed writers left unfinished; nobody else may be writing."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _write_index(self, shards: Mapping[str, Sequence[str]]) -> None:
        content = json.dumps({"format": FORMAT, **self.kind._asdict(), "shards": shards}, indent=1)
        self._put(INDEX, lambda path: path.write_text(content))

    def _put(self, name: str, write: Callable[[Path], object]) -> None:
        """A file that `write` fills, under its name only when it is complete and on the disk."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # a folder, since safetensors makes a file beside the one that it is to write, too
            with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.folder) as unfinished:
                path = Path(unfinished, name)
                write(path)
                os.chmod(path, 0o644)
                _sync(path)
                os.replace(path, self.folder / name)
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"cannot write {self.folder / name}: {error}") from error


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
