import numpy as np
import pytest
import torch

from src.nn.criterion.matcher import Matches
from src.nn.criterion.normalisers import normalisers
from src.nn.criterion.pairs import NoisedLayout, noised_pairs, pair_up

CPU = torch.device("cpu")


def test_positive_copies_are_found_and_padding_is_not() -> None:
    """Pictures of 1, 0 and 2 objects, 2 groups: 8 denoising queries each, positives at 0, 1 and 4, 5."""
    rows, objects = noised_pairs((1, 0, 2), NoisedLayout(num_outputs=2, num_groups=2, max_count=2))
    assert rows.tolist() == [0, 16, 17, 4, 20, 21]
    assert objects.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_picture_with_more_objects_than_noised_copies_is_an_error() -> None:
    with pytest.raises(ValueError, match="room for 2 objects"):
        noised_pairs((1, 3), NoisedLayout(num_outputs=1, num_groups=1, max_count=2))


def test_rows_point_into_stacked_outputs() -> None:
    """Two outputs, two pictures of 5 queries and 1 object each; the outputs disagree about picture 1."""
    matches = Matches(np.array([[2, 6], [2, 8]]), np.array([[0, 1], [0, 1]]))
    pairs = pair_up(matches, (1, 1), 5, NoisedLayout(3, 2, 1), CPU)
    own, noised = pairs.matching, pairs.denoising
    assert own.rows[:, own.by_class].tolist() == [[2, 6], [12, 18]]
    assert own.rows[:, own.by_box].tolist() == [[2, 6, 8], [12, 16, 18]]
    assert own.objects[:, own.by_box].tolist() == [[0, 1, 1], [0, 1, 1]]
    assert noised.rows.tolist() == [[0, 4, 2, 6], [8, 12, 10, 14], [16, 20, 18, 22]]
    assert noised.objects.tolist() == [[0, 1, 0, 1]] * 3
    # pictures, objects, groups, noised objects; with and without object: matching 3 of 10, denoising 4 of 8
    assert pairs.counts.tolist() == [2, 2, 2, 4, 3, 7, 4, 4]


def test_normalisers_are_those_of_the_paper() -> None:
    counts = torch.tensor([2.0, 2, 2, 4, 3, 7, 4, 4])
    own, noised = normalisers(counts)
    assert (float(own.objects), float(own.boxes)) == (2, 3)
    assert (float(noised.objects), float(noised.boxes)) == (4, 4)
    root, rest_root = (3 * 4 * 8 / 2) ** 0.5, (7 * 4 * 8 / 2) ** 0.5
    assert float(own.matched) == pytest.approx(root / (root + rest_root) / 12)
    assert float(own.rest) == pytest.approx(rest_root / (root + rest_root) / 28)
    assert float(noised.matched) == pytest.approx(root / (root + rest_root) / 16)
    assert float(noised.rest) == pytest.approx(rest_root / (root + rest_root) / 16)


@pytest.mark.parametrize("counts", [[1.0, 0, 3, 0, 0, 9, 0, 6], [1.0, 9, 1, 9, 9, 0, 9, 0]])
def test_normalisers_are_finite_without_objects_and_without_rest(counts: list[float]) -> None:
    for part in normalisers(torch.tensor(counts)):
        assert torch.stack(part).isfinite().all()
        assert part.objects >= 1 and part.boxes >= 1


def test_normalisers_are_means_over_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for once, for all counts together."""
    asked = []

    def mean(values: torch.Tensor) -> torch.Tensor:
        asked.append(values)
        return values / 2

    monkeypatch.setattr("src.nn.criterion.normalisers.mean_over_ranks", mean)
    own, noised = normalisers(torch.tensor([4.0, 10, 2, 20, 12, 28, 20, 12]))
    assert len(asked) == 1
    assert [float(x) for x in (own.objects, own.boxes, noised.objects)] == [5, 6, 10]
