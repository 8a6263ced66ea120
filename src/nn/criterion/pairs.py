"""Which predictions meet which objects in a step's losses: indices made on the host, sent in one copy.

Legend: B batch, Q queries of a picture, S = B * Q queries of the batch, O outputs, T objects of the batch,
P pairs of one output by its own matching, G pairs of the union set, D pairs of the denoising queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..transfer import upload
from .go_union import union_of_matches
from .matcher import Matches

Indices = NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of one family of outputs: the matching queries, or the denoising ones.

    Attributes:
        rows: [O, N] int64, output * S + picture * Q + query, so that outputs stacked to [O * S, ...] are
            read at once.
        objects: [O, N] int64, row of the packed targets.
        by_class: The part of N that the class loss trains.
        by_box: The part of N that the box losses train, the same pairs in every output.
    """

    rows: Tensor
    objects: Tensor
    by_class: slice
    by_box: slice


class StepPairs(NamedTuple):
    """All pairs of a step.

    Attributes:
        matching: Of the layers, pre and encoder outputs.
        denoising: Of the denoising outputs, empty where there are none.
        counts: [8] float32, of this rank: pictures B; objects T; denoising copies g of every object (1
            without denoising); T * g; then queries in the box losses with an object and without one, of the
            matching part and of the denoising part.
    """

    matching: Pairs
    denoising: Pairs
    counts: Tensor


class NoisedLayout(NamedTuple):
    """Where the denoising queries of a picture are (`structures.Denoising`).

    Attributes:
        num_outputs: Denoising outputs, 0 where denoising is switched off.
        num_groups: Copies of every object.
        max_count: M, largest object count of the batch, at least 1.
    """

    num_outputs: int = 0
    num_groups: int = 1
    max_count: int = 1

    @property
    def num_queries(self) -> int:
        """Denoising queries of a picture: positive and negative copies, padding included."""
        return self.num_groups * 2 * self.max_count if self.num_outputs else 0


def pair_up(
    matches: Matches, counts: Sequence[int], num_queries: int, noised: NoisedLayout, device: torch.device
) -> StepPairs:
    """Turn a step's matches into indices on the device.

    Args:
        matches: Pairs [O, P] of the outputs' own matchings.
        counts: Objects of each of the B pictures.
        num_queries: Q of the matching part.
        noised: Layout of the denoising part.
        device: Where the losses are computed.
    """
    num_outputs, num_classed = matches.rows.shape
    go_rows, go_objects = union_of_matches(matches)
    rows = np.concatenate((matches.rows, np.tile(go_rows, (num_outputs, 1))), 1)
    objects = np.concatenate((matches.objects, np.tile(go_objects, (num_outputs, 1))), 1)
    dn_rows, dn_objects = noised_pairs(counts, noised)
    dn_shape = (noised.num_outputs, len(dn_rows))
    num_pictures, num_objects = len(counts), sum(counts)
    num_dn_pairs = len(dn_rows) if noised.num_outputs else 0
    numbers = (
        *(num_pictures, num_objects, noised.num_groups, num_objects * noised.num_groups),
        *(len(go_rows), num_pictures * num_queries - len(go_rows)),
        *(num_dn_pairs, num_pictures * noised.num_queries - num_dn_pairs),
    )
    parts = (
        rows + _starts(num_outputs, num_pictures * num_queries),
        objects,
        np.broadcast_to(dn_rows, dn_shape) + _starts(noised.num_outputs, num_pictures * noised.num_queries),
        np.broadcast_to(dn_objects, dn_shape),
        np.asarray(numbers, dtype=np.int64),
    )
    packed = upload(np.concatenate([part.reshape(-1) for part in parts]), device)
    sent = torch.split(packed, [part.size for part in parts])
    own, union = slice(0, num_classed), slice(num_classed, rows.shape[1])
    return StepPairs(
        matching=Pairs(sent[0].view(rows.shape), sent[1].view(rows.shape), own, union),
        denoising=Pairs(sent[2].view(dn_shape), sent[3].view(dn_shape), slice(None), slice(None)),
        counts=sent[4].float(),
    )


def noised_pairs(counts: Sequence[int], noised: NoisedLayout) -> tuple[Indices, Indices]:
    """Rows [D] and objects [D] of the positive copies; padding has none.

    Raises:
        ValueError: A picture has more objects than the denoising queries have room for.
    """
    sizes = np.asarray(counts, dtype=np.int64)
    if noised.num_outputs and sizes.max(initial=0) > noised.max_count:
        raise ValueError(
            f"the denoising queries have room for {noised.max_count} objects a picture, "
            f"but a picture has {sizes.max()}; were they made from other targets?"
        )
    objects = np.arange(sizes.sum())
    pictures = np.repeat(np.arange(len(sizes)), sizes)
    places = objects - np.repeat(np.cumsum(sizes) - sizes, sizes)
    groups = np.arange(noised.num_groups)[:, None] * 2 * noised.max_count
    rows = pictures * noised.num_queries + groups + places
    return rows.reshape(-1), np.tile(objects, noised.num_groups)


def _starts(num_outputs: int, size: int) -> Indices:
    """First rows [O, 1] of outputs that follow each other, `size` rows each."""
    return np.arange(num_outputs, dtype=np.int64)[:, None] * size
