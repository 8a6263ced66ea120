from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data import partners as module
from src.data.partners import Partners, PictureCache, Stored, resized
from src.data.sampler import TrainBatches
from src.structures import Target


def stored(num_pixels, num_boxes=0):
    target = Target(torch.zeros(num_boxes, 4), torch.zeros(num_boxes, dtype=torch.int64), 0, (1, num_pixels))
    return Stored(torch.zeros(1, num_pixels, 3, dtype=torch.uint8), target)


def held(cache):
    """Bytes of the memory that the cache's tensors keep alive, each once."""
    kept = [x for s in cache._kept.values() for x in (s.pixels, s.target.boxes_xyxy_px, s.target.labels)]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept if x.numel()}
    return sum(storages.values())


def test_bytes_by_hand():
    assert stored(10).num_bytes == 30 and stored(10, 2).num_bytes == 30 + 2 * 4 * 4 + 2 * 8
    part = stored(10)._replace(pixels=stored(1000).pixels[:, :10])
    assert part.num_bytes == 3000  # a view keeps all that it is a view of


@given(
    max_bytes=st.integers(0, 400),
    asked=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=40),
)
def test_the_cache_never_keeps_more_bytes_than_allowed(max_bytes, asked):
    cache, sizes = PictureCache(max_bytes), {}
    for index, size in asked:
        sizes.setdefault(index, size)
        found = cache.get(index, lambda k: stored(sizes[k], k % 2))
        assert found.pixels.shape[1] == sizes[index]
        assert cache.num_bytes == held(cache) <= max_bytes
    cache.clear()
    assert cache.num_bytes == len(cache) == 0


def test_the_cache_forgets_what_was_not_asked_for_the_longest():
    loads = []

    def load(index):
        loads.append(index)
        return stored(10)

    cache = PictureCache(90)
    for index in (0, 1, 2, 0, 3, 0, 1):
        cache.get(index, load)
    assert loads == [0, 1, 2, 3, 1]
    cache.get(9, lambda _: stored(31))  # larger than all of it: not kept, and nothing makes room for it
    assert len(cache) == 3


@dataclass
class Source:
    sizes: list
    loads: list
    seed: int = 5
    transforms: object = None

    def __len__(self):
        return len(self.sizes)

    def load(self, index):
        self.loads.append(index)
        h, w = self.sizes[index]
        boxes = torch.tensor([[0.0, 0, w, h], [w / 4, h / 4, w / 2, h / 2]])
        return Image.fromarray(np.full((h, w, 3), index, dtype=np.uint8)), Target(
            boxes, torch.tensor([0, 1]), index, (h, w)
        )


def pools(size, seed=5, epoch=0):
    source = Source([(8, 8)] * size, [], seed)
    partners = Partners(64, 1000)
    return np.stack([partners.pool(source, epoch, k) for k in range(size)])


def test_pictures_loaded_at_about_the_same_time_share_a_pool(monkeypatch):
    monkeypatch.setattr(module, "SPAN", 20)
    monkeypatch.setattr(module, "POOL_SIZE", 8)
    drawn = pools(50)
    assert drawn.shape == (50, 8) and all(len(set(pool)) == 8 for pool in drawn.tolist())
    batches = TrainBatches(50, 10, seed=5)
    of_batches = [{tuple(drawn[k]) for k in batch} for batch in batches]
    assert [len(pools_) for pools_ in of_batches] == [1] * 5
    assert of_batches[0] == of_batches[1] != of_batches[2] == of_batches[3] != of_batches[4]
    assert (pools(50) == drawn).all()
    assert not (pools(50, epoch=1) == drawn).all() and not (pools(50, seed=6) == drawn).all()


def test_few_pictures_are_all_partners():
    assert sorted(pools(3)[0].tolist()) == [0, 1, 2] and pools(1).tolist() == [[0]]


def test_partners_are_shrunk_once_and_decoded_once():
    source = Source([(30, 40), (100, 50), (3, 200)], [])
    partners = Partners(40, 10**6)
    for _ in range(3):
        small, tall, flat = (partners.get(source, k) for k in range(3))
    assert source.loads == [0, 1, 2]
    assert [s.pixels.shape[:2] for s in (small, tall, flat)] == [(30, 40), (40, 20), (1, 40)]
    assert tall.target.boxes_xyxy_px.tolist() == [[0, 0, 20, 40], [5, 10, 10, 20]]
    assert tall.target.size_hw == (100, 50) and tall.target.image_id == 1
    assert partners.cache.num_bytes == held(partners.cache)


def test_resizing_never_loses_a_side():
    tiny = resized(Stored(torch.zeros(1, 50, 3, dtype=torch.uint8), stored(1).target), 0.1)
    assert tiny.pixels.shape == (1, 5, 3)
