"""The union set of global optimal localisation (D-FINE's GO-LSD): whom the box losses of all layers train."""

import numpy as np
from numpy.typing import NDArray

from .matcher import Matches


def union_of_matches(matches: Matches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One pair for every query that some output matched, with the object that most outputs gave it.

    An object may keep several queries. Where outputs disagree evenly, the object that comes first in the
    targets wins.

    Args:
        matches: Pairs [O, P] of all outputs.

    Returns:
        Rows [G], increasing and unique, and the objects [G] that they stand for.
    """
    num_objects = int(matches.objects.max(initial=0)) + 1
    pairs, votes = np.unique(matches.rows * num_objects + matches.objects, return_counts=True)
    rows, objects = np.divmod(pairs, num_objects)
    order = np.lexsort((-votes, rows))  # stable, and pairs come sorted by row and object
    rows, objects = rows[order], objects[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = rows[1:] != rows[:-1]
    return rows[first], objects[first]
