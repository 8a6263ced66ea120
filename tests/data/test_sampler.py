import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data import EvalBatches, TrainBatches


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9))
def test_evaluation_gives_each_picture_once(num_pictures, batch_size, world_size):
    ranks = [EvalBatches(num_pictures, batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    given_out = [i for rank in ranks for batch in rank for i in batch]
    assert sorted(given_out) == list(range(num_pictures))
    shares = [sum(len(batch) for batch in rank) for rank in ranks]
    assert max(shares) - min(shares) <= 1
    assert all(len(list(rank)) == len(rank) for rank in ranks)
    assert all(0 < len(batch) <= batch_size for rank in ranks for batch in rank)


@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 3)
)
def test_the_batches_of_all_ranks_are_the_batch_of_one(
    num_pictures, batch_size, world_size, shuffle, drop_last, epoch
):
    total = batch_size * world_size
    if drop_last and num_pictures < total:
        with pytest.raises(ValueError, match=f"has {num_pictures} pictures.*{total} .*drop_last: False"):
            TrainBatches(num_pictures, total, drop_last=True)
        return
    options = {"shuffle": shuffle, "drop_last": drop_last, "seed": 3}
    alone = TrainBatches(num_pictures, total, **options)
    ranks = [
        TrainBatches(num_pictures, batch_size, rank=r, world_size=world_size, **options)
        for r in range(world_size)
    ]
    for sampler in (alone, *ranks):
        sampler.set_position(epoch)
    joined = [sum(parts, []) for parts in zip(*ranks, strict=True)]
    expected = list(alone)
    assert joined == expected and len(alone) == len(expected) == len(ranks[0])
    assert all(len(batch) == total for batch in expected)
    flat = [i for batch in expected for i in batch]
    if drop_last:
        assert len(set(flat)) == len(flat) > num_pictures - total
    else:
        assert set(flat) == set(range(num_pictures)) and len(flat) < num_pictures + total


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch, **options):
        sampler = TrainBatches(40, 4, seed=seed, **options)
        sampler.set_position(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1) != order(1, 0) != order(0, 0)
    assert (
        order(0, 1, shuffle=False)
        == order(5, 2, shuffle=False)
        == [list(range(k, k + 4)) for k in range(0, 40, 4)]
    )


@given(st.integers(0, 10))
def test_an_epoch_goes_on_in_the_middle(start):
    whole, rest = TrainBatches(40, 4), TrainBatches(40, 4)
    whole.set_position(2)
    rest.set_position(2, start)
    assert list(rest) == list(whole)[start:] and len(rest) == 10 - start


def test_a_set_smaller_than_the_batch_is_repeated_without_drop_last():
    (batch,) = TrainBatches(3, 8, drop_last=False, shuffle=False)
    assert batch == [0, 1, 2, 0, 1, 2, 0, 1]
