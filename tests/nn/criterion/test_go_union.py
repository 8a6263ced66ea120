from collections import Counter

import numpy as np
import pytest

from src.nn.criterion.go_union import union_of_matches
from src.nn.criterion.matcher import Matches


def slow_union(matches: Matches) -> dict[int, int]:
    """For each matched row the object with most votes; of equals, the first object."""
    votes: dict[int, Counter[int]] = {}
    for rows, objects in zip(matches.rows, matches.objects, strict=True):
        for row, thing in zip(rows, objects, strict=True):
            votes.setdefault(int(row), Counter())[int(thing)] += 1
    return {row: min(count, key=lambda thing: (-count[thing], thing)) for row, count in votes.items()}


@pytest.mark.parametrize("seed", range(20))
def test_equals_a_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, things, rows = int(rng.integers(1, 9)), int(rng.integers(1, 9)), 12
    matches = Matches(
        np.stack([rng.permutation(rows)[:things] for _ in range(outputs)]),
        np.stack([rng.permutation(things) for _ in range(outputs)]),
    )
    found_rows, found_objects = union_of_matches(matches)
    assert dict(zip(found_rows.tolist(), found_objects.tolist(), strict=True)) == slow_union(matches)
    assert (np.diff(found_rows) > 0).all()


def test_votes_ties_and_an_object_with_several_queries() -> None:
    """Row 4: object 1 twice, object 0 once. Row 5: objects 0 and 1 once each. Object 1 keeps rows 4 and 6."""
    matches = Matches(np.array([[4, 5], [4, 5], [4, 6]]), np.array([[1, 0], [0, 1], [1, 1]]))
    rows, objects = union_of_matches(matches)
    assert rows.tolist() == [4, 5, 6] and objects.tolist() == [1, 0, 1]


def test_no_match_at_all() -> None:
    none = np.zeros((5, 0), dtype=np.int64)
    rows, objects = union_of_matches(Matches(none, none))
    assert rows.shape == objects.shape == (0,)
