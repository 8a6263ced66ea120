"""From a dataset to batches, through worker processes."""

import os
import re
import signal
import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ..structures import Batch, Target
from .coco import CocoDetection
from .collate import collate
from .mixing import Chances
from .sampler import EvalBatches, TrainBatches

# torch gives a worker's error as its traceback in one string, of which the user needs the message alone; the
# lines of a traceback are indented, up to the error's name
TRACEBACK = re.compile(
    r"\ACaught \w+ in DataLoader worker .*Traceback \(most recent call last\):\n(?: [^\n]*\n|\n)+[^\s:]+: ",
    re.DOTALL,
)


class TrainLoader:
    """Gives the batches of one epoch at a time, on this rank.

    Attributes:
        dataset: The pictures.
        batches: Decides which of them a batch holds.
    """

    def __init__(
        self, dataset: CocoDetection, batches: TrainBatches, loader: "DataLoader[tuple[Tensor, Target]]"
    ):
        self.dataset = dataset
        self.batches = batches
        self._loader = loader

    @property
    def has_strong_augmentation(self) -> bool:
        """Whether any transform can be switched off."""
        return bool(self.dataset.transforms.strong_ops)

    def set_epoch(
        self,
        epoch: int,
        *,
        strong_augmentation: bool,
        chances: Chances = Chances(),  # noqa: B008 (immutable)
        start_batch: int = 0,
    ) -> None:
        """The next iteration is this epoch's.

        Args:
            epoch: Decides the order and every random draw.
            strong_augmentation: Whether the pipeline's strong transforms run.
            chances: How often pictures are mixed.
            start_batch: First batch that is given, to go on in the middle of an epoch.
        """
        self.dataset.set_epoch(epoch, strong_augmentation=strong_augmentation, chances=chances)
        self.batches.set_position(epoch, start_batch)

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it starts."""
        return self.batches.num_batches

    def __iter__(self) -> Iterator[Batch]:
        return _iterate(self._loader)


class EvalLoader:
    """Gives this rank's share of the pictures, each once.

    Attributes:
        dataset: The pictures.
    """

    def __init__(self, dataset: CocoDetection, loader: "DataLoader[tuple[Tensor, Target]]"):
        self.dataset = dataset
        self._loader = loader

    def __len__(self) -> int:
        """Batches of this rank; other ranks may have one more or less, or none."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return _iterate(self._loader)


def build_train_loader(
    dataset: CocoDetection,
    *,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> TrainLoader:
    """A loader for training.

    Args:
        dataset: The pictures.
        batch_size: Pictures of a batch on this rank.
        num_workers: Processes that load; 0 loads in this one. They live until the loader goes.
        shuffle: Draw an order for each epoch.
        drop_last: Leave out the pictures that do not fill a batch; else the last batch is filled up.
        seed: Of the order (the dataset has the seed of the transforms).
        rank: This process.
        world_size: Number of processes.
        pin_memory: Give batches in page-locked memory, for a CUDA device.

    Raises:
        ValueError: The dataset has not one full batch.
    """
    batches = TrainBatches(
        len(dataset),
        batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    return TrainLoader(dataset, batches, _data_loader(dataset, batches, num_workers, pin_memory))


def build_eval_loader(
    dataset: CocoDetection,
    *,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> EvalLoader:
    """A loader for evaluation: over all ranks, each picture exactly once.

    Raises:
        ValueError: The pipeline crops, pads or mirrors: the boxes found could not be put back into the
            picture.
    """
    moving = dataset.transforms.moves_frame
    if moving:
        raise ValueError(
            f"the evaluation transforms hold {', '.join(moving)}, after which boxes cannot be compared with "
            "those of the stored picture; leave Resize, ConvertPILImage, Normalize, ConvertBoxes in "
            "val_dataloader only"
        )
    batches = EvalBatches(len(dataset), batch_size, rank=rank, world_size=world_size)
    return EvalLoader(dataset, _data_loader(dataset, batches, num_workers, pin_memory))


def _data_loader(
    dataset: CocoDetection, batches: Sampler[list[int]], num_workers: int, pin_memory: bool
) -> "DataLoader[tuple[Tensor, Target]]":
    # fork shares the packed annotations and starts in no time; macOS and Windows have only spawn to trust
    method = "fork" if sys.platform == "linux" else "spawn"
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        multiprocessing_context=method if num_workers else None,
        worker_init_fn=_leave_signals_to_the_main_process,
        # its own generator: else each epoch would draw from torch's global one, and the model's draws would
        # depend on how often a loader was started
        generator=torch.Generator().manual_seed(0),
    )


def _leave_signals_to_the_main_process(worker: int) -> None:  # noqa: ARG001 (torch passes it)
    """A terminal's Ctrl-C and torchrun's SIGTERM go to a whole process group, to the workers too.

    But the run still needs batches until its ranks have agreed to stop. So a worker has a group of its own;
    it ends with the loader, on a SIGTERM of its own, or when its parent has gone. torch gives it one thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.setpgrp()


def _iterate(loader: "DataLoader[tuple[Tensor, Target]]") -> Iterator[Batch]:
    try:
        yield from loader
    except ValueError as error:
        raise ValueError(TRACEBACK.sub("", str(error)).rstrip()) from error
