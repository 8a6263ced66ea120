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

from .feature_store import FORMAT, INDEX, SHARDS, FeatureKind, all_pictures, find_shards, read_index

UNFINISHED = ".unfinished-"


class FeatureWriter:
    """Adds features to a folder.

    Several processes may write pictures of their own into one folder at the same time.

    Attributes:
        folder: The folder, made where it is missing.
        kind: What its features have in common.
        stored: File names of the pictures that are in it, by id.
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
        # damaged shards hold none, whatever the index says
        self.stored = all_pictures(find_shards(folder, kind, {}))
        if not indexed:
            self._write_index({})

    def lacking(self, image_ids: Sequence[int | str], file_names: Sequence[str]) -> list[int]:
        """Places of those pictures that are not in the folder.

        Raises:
            ValueError: An id is there as that of another file.
        """
        named = list(zip(map(str, image_ids), file_names, strict=True))
        for image_id, name in named:
            if (held := self.stored.get(image_id, name)) != name:
                raise ValueError(
                    f"{self.folder} holds {held} as picture {image_id}, which is {name} now: the folder is "
                    "of another dataset. Give these features a folder of their own (-o, feature_output_dir)."
                )
        return [place for place, (image_id, _) in enumerate(named) if image_id not in self.stored]

    def write(
        self, image_ids: Sequence[int | str], file_names: Sequence[str], features: Mapping[str, Tensor]
    ) -> None:
        """Saves pictures as one shard.

        Args:
            image_ids: B ids, of pictures that are not in the folder.
            file_names: B, by which it is known later whether an id means the same picture.
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
        held = dict(zip(names, file_names, strict=True))
        content = json.dumps({"kind": self.kind._asdict(), "file_names": held})
        digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
        self._put(SHARDS.replace("*", digest), lambda path: save_file(tensors, path, {"features": content}))
        self.stored.update(held)

    def finish(self) -> None:
        """Writes the index of all shards that are there, also those of other processes."""
        shards = find_shards(self.folder, self.kind, {})
        self._write_index({shard: held for shard, held in shards.items() if held})  # the damaged hold none

    def sweep(self) -> None:
        """Removes what killed writers left unfinished; nobody else may be writing."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _write_index(self, shards: Mapping[str, Mapping[str, str]]) -> None:
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
