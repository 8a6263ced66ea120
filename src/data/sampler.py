"""Which pictures a batch holds: the same answer on any number of processes."""

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from .seeds import seed_of


def epoch_order(num_pictures: int, seed: int, epoch: int) -> torch.Tensor:
    """The shuffled indices [num_pictures] of an epoch."""
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    return torch.randperm(num_pictures, generator=generator)


class TrainBatches(Sampler[list[int]]):
    """One rank's share of the batches of an epoch.

    The order is a pure function of (seed, epoch). Global batch k, of `batch_size * world_size` pictures, is
    the same on any number of ranks that makes the same product; rank r takes the r-th of its equal slices, so
    all ranks have equally many full batches. Without `drop_last` the last batch is filled from the start of
    the order.

    Args:
        num_pictures: Size of the dataset.
        batch_size: Pictures of a batch on one rank.
        shuffle: Draw an order for each epoch; else the dataset's own.
        drop_last: Leave out the pictures that do not fill a batch.
        seed: Of the order.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: Not one full batch.
    """

    def __init__(
        self,
        num_pictures: int,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_pictures = num_pictures
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.global_batch = batch_size * world_size
        full = num_pictures // self.global_batch
        self.num_batches = full if drop_last else math.ceil(num_pictures / self.global_batch)
        self.epoch = 0
        self.start_batch = 0
        if self.num_batches == 0:
            raise ValueError(
                f"the training set has {num_pictures} pictures, fewer than the one batch of "
                f"{self.global_batch} ({batch_size} on each of {world_size} processes) that drop_last asks "
                "for; lower total_batch_size, or set drop_last: False"
            )

    def set_position(self, epoch: int, start_batch: int = 0) -> None:
        """The next iteration is this epoch's, from this batch on."""
        self.epoch = epoch
        self.start_batch = start_batch

    def __len__(self) -> int:
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            order = epoch_order(self.num_pictures, self.seed, self.epoch)
        else:
            order = torch.arange(self.num_pictures)
        order = order[torch.arange(self.num_batches * self.global_batch) % self.num_pictures]
        shares = order.view(self.num_batches, -1, self.batch_size)[:, self.rank]
        yield from shares[self.start_batch :].tolist()


class EvalBatches(Sampler[list[int]]):
    """One rank's share of the pictures to evaluate: each picture is on one rank, once, none is repeated.

    Shares are contiguous and differ by at most one picture; with fewer pictures than ranks some are empty.

    Args:
        num_pictures: Size of the dataset.
        batch_size: Pictures of a batch on one rank; the last batch may be smaller.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, num_pictures: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size = batch_size
        self.indices = range(num_pictures * rank // world_size, num_pictures * (rank + 1) // world_size)

    def __len__(self) -> int:
        return math.ceil(len(self.indices) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield list(self.indices[start : start + self.batch_size])
