"""Extractions in processes of their own, that others or they themselves kill."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from src.deploy.feature_extraction import extract_to_folder, list_pictures
from src.nn.backbone.vit import ViTShape
from src.teachers import DinoV3Teacher, FeatureWriter, feature_writer

SHAPE = ViTShape(embed_dim=24, depth=2, num_heads=2, layer_scale=0.5)
SIZE_HW = (40, 52)  # no multiples of 16
BATCH_SIZE, SHARD_PICTURES = 2, 4
NUM_PICTURES = 61  # the last shard is short, and so is its batch


def small_teacher() -> DinoV3Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DinoV3Teacher(SHAPE)


def write_pictures(folder: Path, count: int = NUM_PICTURES) -> None:
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        h, w = draw.integers(20, 60, 2)
        pixels = draw.integers(0, 256, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def extract(
    pictures: Path,
    folder: Path,
    *,
    rank: int = 0,
    store: Path | None = None,
    die_at: str = "",
    hang_after: int | None = None,
) -> None:
    """One process's life; with `store`, as one of two ranks that meet there.

    Args:
        pictures: Folder of the pictures.
        folder: Folder of the features.
        rank: This process's.
        store: New file.
        die_at: Function that kills this process when it is called for the third time; "" for none.
        hang_after: Shards after which it waits to be killed; None for a life that ends well.
    """
    torch.set_num_threads(1)
    if store is not None:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    if die_at:
        _die_at(die_at)
    if hang_after is not None:
        _hang_after(hang_after)
    listed = list_pictures(pictures, None, SIZE_HW)
    extract_to_folder(
        small_teacher(),
        listed,
        folder,
        batch_size=BATCH_SIZE,
        num_threads=2,
        shard_pictures=SHARD_PICTURES,
    )
    if store is not None:
        dist.barrier()
        os._exit(0)  # as tests/ranks.py says


def _die_at(name: str) -> None:
    owner: Any = feature_writer if hasattr(feature_writer, name) else os
    original, calls = getattr(owner, name), 0

    def dying(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 3:
            return original(*args)
        if name == "save_file":  # in the middle of it
            original(*args)
            os.truncate(args[1], os.path.getsize(args[1]) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def _hang_after(shards: int) -> None:
    original, calls = FeatureWriter.write, 0

    def write(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > shards:
            time.sleep(3600)
        original(*args)

    FeatureWriter.write = write  # type: ignore[method-assign]


def begin(*args: Any, **named: Any) -> BaseProcess:
    """A process that calls `extract`; it starts fast, from a server that knows torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "torchvision", "scipy.optimize", "pycocotools.mask"])
    process = context.Process(target=extract, args=args, kwargs=named, daemon=True)
    process.start()
    return process


def kill_at_random(processes: Sequence[BaseProcess], folder: Path, draw: random.Random) -> None:
    """Let processes that hang at the latest after two shards add one or two, then kill them at any moment."""
    before, wanted = num_shards(folder), draw.randint(1, 2)
    wait(lambda: num_shards(folder) >= before + wanted)
    time.sleep(draw.uniform(0, 0.02))
    for process in processes:
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL


def num_shards(folder: Path) -> int:
    return len(list(folder.glob("features-*")))


def wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < deadline, "nothing happens any more"
        time.sleep(0.001)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
