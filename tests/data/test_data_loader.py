import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

from src.data import CocoDetection, PictureError, build_eval_loader, build_train_loader


def _epoch(loader):
    return [(batch.images.clone(), batch.targets) for batch in loader]


def _same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0])
        and a[1].image_ids == b[1].image_ids
        and torch.equal(a[1].boxes_cxcywh, b[1].boxes_cxcywh)
        for a, b in zip(one, other, strict=True)
    )


def test_epoch_and_strong_augmentation_reach_persistent_workers(make_disk, recipe):
    dataset = make_disk(10).dataset(recipe)
    alone = build_train_loader(dataset, batch_size=4, num_workers=0, seed=1)
    working = build_train_loader(dataset, batch_size=4, num_workers=2, seed=1)
    seen = []
    for epoch, strong in ((0, True), (1, True), (1, False), (0, True)):
        for loader in (alone, working):
            loader.set_epoch(epoch, strong_augmentation=strong)
        seen.append(_epoch(working))
        assert _same(seen[-1], _epoch(alone))
    assert _same(seen[0], seen[3])
    assert not _same(seen[0], seen[1]) and not _same(seen[1], seen[2])


def test_an_epoch_goes_on_in_the_middle(make_disk, recipe):
    loader = build_train_loader(make_disk(10).dataset(recipe), batch_size=2, num_workers=1)
    loader.set_epoch(3, strong_augmentation=True)
    whole = _epoch(loader)
    loader.set_epoch(3, strong_augmentation=True, start_batch=3)
    assert len(loader) == 5 and _same(_epoch(loader), whole[3:])


def test_two_ranks_see_what_one_sees(make_disk, recipe):
    dataset = make_disk(9).dataset(recipe)
    options = {"seed": 2, "drop_last": False}
    (one,) = [build_train_loader(dataset, batch_size=4, **options)]
    ranks = [build_train_loader(dataset, batch_size=2, rank=r, world_size=2, **options) for r in range(2)]
    for whole, first, second in zip(one, *ranks, strict=True):
        assert torch.equal(whole.images, torch.cat((first.images, second.images)))
        assert whole.targets.counts == first.targets.counts + second.targets.counts


def test_evaluation_gives_each_picture_once_with_more_ranks_than_pictures(disk):
    dataset = disk.dataset()
    loaders = [build_eval_loader(dataset, batch_size=2, rank=r, world_size=5) for r in range(5)]
    ids = [list(batch.targets.image_ids) for loader in loaders for batch in loader]
    assert sorted(sum(ids, [])) == [100, 101, 102]
    assert sorted(len(loader) for loader in loaders) == [0, 0, 1, 1, 1]


def test_evaluation_refuses_transforms_that_move_the_frame(disk, recipe):
    with pytest.raises(ValueError, match="hold RandomZoomOut, RandomIoUCrop, RandomHorizontalFlip"):
        build_eval_loader(disk.dataset(recipe), batch_size=2)


def test_loading_does_not_draw_from_the_global_generator(disk, recipe):
    loader = build_train_loader(disk.dataset(recipe), batch_size=1)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    list(loader)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_jpeg_is_one_paragraph_with_file_and_remedy(disk, num_workers):
    path = disk.folder / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:3000])
    loader = build_eval_loader(disk.dataset(), batch_size=3, num_workers=num_workers)
    with pytest.raises(
        ValueError, match=r"^picture \S+1\.png cannot be decoded .*replace the file"
    ) as caught:
        list(loader)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("ops", "said"),
    [
        ((), "cannot be one batch: 50x80, 60x80 "),
        ((("PadToSize", {"size": (55, 80)}),), "PadToSize: a picture of 60x80 "),
    ],
)
def test_a_worker_tells_a_fault_in_the_words_of_the_main_process(disk, ops, said):
    Image.new("RGB", (80, 60)).save(disk.folder / "images" / "1.png")
    disk.document["images"][1]["height"] = 60
    told = []
    for num_workers in (0, 1):
        loader = build_train_loader(disk.dataset(ops), batch_size=3, num_workers=num_workers)
        with pytest.raises(ValueError, match=said) as caught:
            list(loader)
        told.append(str(caught.value))
    assert told[0] == told[1] and "\n" not in told[0]


@pytest.mark.skipif(sys.platform != "linux", reason="forked workers")
def test_a_workers_message_of_several_paragraphs_stays_whole(disk, monkeypatch):
    """Also of an error that another one caused, and whose class is not a builtin."""

    def fail(*_):
        try:
            raise KeyError("x")
        except KeyError as error:
            raise PictureError("one: two\n\n  three: four\nfive: six") from error

    monkeypatch.setattr(CocoDetection, "__getitem__", fail)
    loader = build_eval_loader(disk.dataset(), batch_size=3, num_workers=1)
    with pytest.raises(ValueError, match="one") as caught:
        list(loader)
    assert str(caught.value) == "one: two\n\n  three: four\nfive: six"


def test_too_few_pictures_are_refused(disk):
    with pytest.raises(ValueError, match="3 pictures, fewer than the one batch of 8 .*drop_last: False"):
        build_train_loader(disk.dataset(), batch_size=4, world_size=2)


def test_pictures_without_any_object_make_batches(disk):
    disk.document["annotations"] = []
    (batch,) = build_train_loader(disk.dataset(), batch_size=3)
    assert batch.targets.boxes_cxcywh.shape == (0, 4) and batch.targets.counts == (0, 0, 0)


@pytest.mark.gpu
def test_batches_are_pinned_for_a_gpu(disk):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    (batch,) = build_train_loader(disk.dataset(), batch_size=3, pin_memory=True)
    assert batch.images.is_pinned() and batch.targets.boxes_cxcywh.is_pinned()


INTERRUPTED = """
    import os, signal, subprocess, sys, torch
    from src.data import CocoDetection, build_pipeline, build_train_loader

    folder = sys.argv[1]
    signal.signal(signal.SIGINT, lambda *_: os.write(2, b"interrupted\\n"))
    signal.signal(signal.SIGTERM, lambda *_: os.write(2, b"terminated\\n"))
    pipeline = build_pipeline([("Resize", {})], (), (32, 32))
    dataset = CocoDetection(f"{folder}/images", f"{folder}/instances.json", pipeline)
    loader = build_train_loader(dataset, batch_size=1, num_workers=2)
    batches = iter(loader)
    next(batches)
    os.killpg(0, signal.SIGINT)
    print(len(list(batches)))
    worker = loader._loader._iterator._workers[0]
    try:
        subprocess.run(["kill", "-TERM", str(worker.pid)])
        worker.join(20)
    except RuntimeError as error:
        assert "worker" in str(error)
    worker.join(20)
    print(worker.exitcode == -signal.SIGTERM)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forked workers")
def test_an_interrupt_is_the_main_processs_and_sigterm_ends_a_worker_at_once(make_disk):
    disk = make_disk(6)
    disk.write()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(disk.folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
    assert done.stdout.split() == ["5", "True"], done.stderr
    assert done.stderr.count("interrupted") == 1 and "terminated" not in done.stderr, done.stderr
