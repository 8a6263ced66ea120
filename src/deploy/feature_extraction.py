"""A teacher's features of all pictures of a folder or a COCO file, on one or several processes.

Who is killed and started again goes on with the first shard that is missing, and cuts the pictures into
the same batches as before: the folder becomes, bit for bit, what it would have become.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from .. import distributed
from ..data import CocoDetection, decode_rgb, to_device_images
from ..structures import Target
from ..teachers import DinoV3Teacher, FeatureKind, FeatureWriter
from ..teachers.feature_store import SHARDS, Dtype
from .predictor import evaluation_pipeline
from .sources import find_pictures

_log = logging.getLogger(__name__)

SHARD_BYTES = 256 << 20
SHARD_PICTURES = 1024
BATCHES_AHEAD = 2


class Pictures(NamedTuple):
    """Pictures of one size, by their place in a list.

    Attributes:
        image_ids: What each is called: its id in a COCO file, or its file's name.
        file_names: Their files, relative to the folder.
        size_hw: (height, width) that they are stretched to.
        load: Gives the one at a place, uint8 [3, height, width].
    """

    image_ids: tuple[str, ...]
    file_names: tuple[str, ...]
    size_hw: tuple[int, int]
    load: Callable[[int], Tensor]


class Extracted(NamedTuple):
    """What an extraction has done.

    Attributes:
        folder: Where the features are.
        num_pictures: Pictures with features there now, of all processes.
        num_before: Those of them that were there before.
        num_bytes: Size of all shards in the folder.
    """

    folder: Path
    num_pictures: int
    num_before: int
    num_bytes: int


def list_pictures(img_folder: Path, ann_file: Path | None, size_hw: tuple[int, int]) -> Pictures:
    """The pictures that a COCO file lists, or without one those of the folder.

    Raises:
        ValueError: There are none, a listed one is missing, or a side of `size_hw` is not above 0.
    """
    if min(size_hw) < 1:
        raise ValueError(f"size {size_hw[0]} {size_hw[1]} (height, width) was asked for; both are above 0")
    pipeline = evaluation_pipeline(size_hw)
    if ann_file is not None:
        # of no interest here: boxes, nor whether they are empty
        dataset = CocoDetection(img_folder, ann_file, pipeline, drop_empty_boxes=True)
        ids = tuple(str(image_id) for image_id in dataset.annotations.image_ids.tolist())
        file_names = tuple(dataset.annotations.file_names())
        return Pictures(ids, file_names, size_hw, lambda index: dataset[index][0])
    if not img_folder.is_dir():
        raise ValueError(f"picture folder {img_folder} does not exist")
    paths = find_pictures(img_folder)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0, (0, 0))

    def load(index: int) -> Tensor:
        return pipeline(decode_rgb(paths[index]), nothing, strong=False)[0]

    names = tuple(path.name for path in paths)
    return Pictures(names, names, size_hw, load)


def extract_to_folder(
    teacher: DinoV3Teacher,
    pictures: Pictures,
    folder: Path,
    *,
    dtype: Dtype = "float16",
    batch_size: int = 8,
    num_threads: int = 4,
    shard_pictures: int | None = None,
) -> Extracted:
    """Saves the features of those pictures that have none in `folder` yet.

    With several processes each takes every so many-th of the missing shards; the shards are the same for any
    number of processes.

    Args:
        teacher: With its weights, on the device that computes.
        pictures: What to look at.
        folder: Made where it is missing.
        dtype: What numbers are saved as.
        batch_size: Pictures that the teacher sees at a time.
        num_threads: Threads that decode pictures.
        shard_pictures: Pictures of a shard, about what a kill may cost each process; None takes 1024 of them,
            or fewer that make 256 MiB. It is cut to whole batches.

    Raises:
        ValueError: The folder holds features of another model or size, or of other pictures under the same
            ids; a picture cannot be read, or a setting is out of range.
    """
    if batch_size < 1 or num_threads < 1:
        raise ValueError(f"batch size {batch_size}, {num_threads} threads: both are 1 or more")
    kind = teacher.feature_kind(pictures.size_hw, dtype)
    writer = FeatureWriter(folder, kind)
    missing = writer.lacking(pictures.image_ids, pictures.file_names)
    num_before = len(pictures.image_ids) - len(missing)
    length = shard_pictures or min(SHARD_PICTURES, SHARD_BYTES // _bytes_of_one(kind))
    shards = _cut(missing, max(1, length // batch_size) * batch_size)
    distributed.barrier()  # every process has seen the folder before one adds to it
    if distributed.is_main():
        writer.sweep()
        gigabytes = len(missing) * _bytes_of_one(kind) / 1e9
        _log.info("%d pictures to do, %d are done; about %.2g GB more", len(missing), num_before, gigabytes)
    distributed.barrier()  # nothing unfinished is swept that is still wanted
    own = shards[distributed.rank() :: distributed.world_size()]
    _extract(teacher, pictures, writer, own, batch_size, num_threads)
    distributed.barrier()
    if distributed.is_main():
        writer.finish()
    num_bytes = sum(path.stat().st_size for path in folder.glob(SHARDS))
    return Extracted(folder, len(pictures.image_ids), num_before, num_bytes)


def _extract(
    teacher: DinoV3Teacher,
    pictures: Pictures,
    writer: FeatureWriter,
    shards: Sequence[Sequence[int]],
    batch_size: int,
    num_threads: int,
) -> None:
    """This process's shards, one after another."""
    batches = [batch for shard in shards for batch in _cut(shard, batch_size)]
    silent = None if distributed.is_main() else True  # None: where there is a terminal
    with (
        ThreadPoolExecutor(num_threads) as pool,
        tqdm(total=sum(map(len, shards)), unit="picture", disable=silent) as bar,
    ):
        loaded = _load_ahead(pictures.load, batches, pool)
        for shard in shards:
            rows: dict[str, list[Tensor]] = {name: [] for name in writer.kind.feature_dims}
            for batch in _cut(shard, batch_size):
                images = to_device_images(next(loaded).to(teacher.image_mean.device))
                for name, tokens in teacher(images).items():
                    rows[name].append(tokens.to(writer.kind.torch_dtype).cpu())
                bar.update(len(batch))
            features = {name: torch.cat(parts) for name, parts in rows.items()}
            ids, names = ([row[i] for i in shard] for row in (pictures.image_ids, pictures.file_names))
            writer.write(ids, names, features)


def _load_ahead(
    load: Callable[[int], Tensor], batches: Sequence[Sequence[int]], pool: ThreadPoolExecutor
) -> Iterator[Tensor]:
    """Batches [B, 3, H, W] in their order, while the pool decodes the next ones."""
    waiting: deque[list[Future[Tensor]]] = deque()
    for batch in batches:
        waiting.append([pool.submit(load, index) for index in batch])
        if len(waiting) > BATCHES_AHEAD:
            yield torch.stack([future.result() for future in waiting.popleft()])
    for futures in waiting:
        yield torch.stack([future.result() for future in futures])


def _bytes_of_one(kind: FeatureKind) -> int:
    """What a picture's features take, near enough."""
    tokens = {"cls_token": 1, "patch_tokens": kind.grid_hw[0] * kind.grid_hw[1]}
    return sum(2 * tokens[name] * dim for name, dim in kind.feature_dims.items())


def _cut(items: Sequence[int], length: int) -> list[Sequence[int]]:
    return [items[start : start + length] for start in range(0, len(items), length)]
