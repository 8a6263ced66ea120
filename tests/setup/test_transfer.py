import hashlib
import logging
import os
import random
import shutil
from pathlib import Path

import pytest
from weight_server import WeightServer, serve

from src.setup import transfer
from src.setup.transfer import Source, fetch, partial

CONTENT = random.Random(0).randbytes(3_000_001)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SECRET = "Signature=do-not-show-me"
HALF = len(CONTENT) // 2


@pytest.fixture
def server():
    with serve(CONTENT) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "vits16-12345678.pth"


def source(server: WeightServer, digest: str = DIGEST[:8]) -> Source:
    return Source(f"{server.address}/dinov3/vits16-12345678.pth?{SECRET}&Policy=x", digest)


def part_size(path: Path) -> int:
    return partial(path).stat().st_size if partial(path).exists() else 0


def test_a_whole_file_arrives(server, path):
    assert fetch(source(server), path) == partial(path)
    assert partial(path).read_bytes() == CONTENT
    assert partial(path).suffix == ".pth" and not path.exists()
    assert SECRET in server.requests[0][1]


def test_a_broken_connection_is_continued(server, path):
    server.faults = ["break", "break"]
    for share in (HALF, HALF + (len(CONTENT) - HALF) // 2):
        with pytest.raises(ValueError, match=f"broke off after {share:,} of {len(CONTENT):,} bytes.*goes on"):
            fetch(source(server), path)
        assert part_size(path) == share
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-", f"bytes={HALF + (len(CONTENT) - HALF) // 2}-"]


def test_a_server_without_ranges_starts_anew(server, path):
    server.faults = ["break", "plain"]
    with pytest.raises(ValueError, match="broke off"):
        fetch(source(server), path)
    fetch(source(server), path)
    assert server.ranges()[1] == f"bytes={HALF}-"
    assert partial(path).read_bytes() == CONTENT


def test_more_than_the_server_has_starts_anew(server, path, caplog):
    path.parent.mkdir()
    partial(path).write_bytes(CONTENT + b"more")
    with caplog.at_level(logging.WARNING):
        fetch(source(server), path)
    assert "starting anew" in caplog.text
    assert server.ranges() == [f"bytes={len(CONTENT) + 4}-", None]
    assert partial(path).read_bytes() == CONTENT


def test_a_whole_file_that_was_not_renamed_is_not_fetched_again(server, path):
    path.parent.mkdir()
    partial(path).write_bytes(CONTENT)
    fetch(source(server), path)
    assert server.requests == []


def test_all_as_a_piece_that_nobody_asked_for(server, path):
    server.faults = ["unasked"]
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


def test_another_piece_than_asked_for_is_refused(server, path):
    server.faults = ["break", "shift"]
    for words in ("broke off", "another piece"):
        with pytest.raises(ValueError, match=words):
            fetch(source(server), path)
    assert not partial(path).exists()
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


def test_the_wrong_file_is_thrown_away(server, path):
    server.faults = ["other"]
    with pytest.raises(ValueError, match=f"{DIGEST[:8]} was to be its beginning.*thrown away"):
        fetch(source(server), path)
    assert not partial(path).exists()
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


def test_a_web_page_does_not_touch_what_has_arrived(server, path):
    server.faults = ["break", "page"]
    with pytest.raises(ValueError, match="broke off"):
        fetch(source(server), path)
    with pytest.raises(ValueError, match="a web page came"):
        fetch(source(server), path)
    assert part_size(path) == HALF
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "403 Forbidden.*ask for a new one"),
        (404, "404 Not Found: there is no such"),
        (503, "try again"),
    ],
)
def test_a_refusal_says_what_to_do_and_shows_no_secret(server, path, status, words):
    server.faults = ["break", status]
    with pytest.raises(ValueError, match="broke off"):
        fetch(source(server), path)
    with pytest.raises(ValueError, match=words) as caught:
        fetch(source(server), path)
    assert "127.0.0.1/dinov3/vits16-12345678.pth: " in str(caught.value)
    assert SECRET not in str(caught.value) and caught.value.__suppress_context__
    assert part_size(path) == HALF


def test_a_range_that_is_refused_from_the_beginning_ends(server, path):
    server.faults = [416]
    with pytest.raises(ValueError, match="416"):
        fetch(source(server), path)


def test_redirects_are_followed_with_the_range(server, path):
    server.faults = ["break", "redirect"]
    with pytest.raises(ValueError, match="broke off"):
        fetch(source(server), path)
    fetch(source(server), path)
    assert server.ranges() == [None, f"bytes={HALF}-", f"bytes={HALF}-"]
    assert partial(path).read_bytes() == CONTENT


def test_redirects_in_a_circle_end_without_the_secret(server, path):
    server.faults = ["redirect"] * 30
    with pytest.raises(ValueError, match="302") as caught:
        fetch(source(server), path)
    assert "hidden" not in str(caught.value)


def test_a_slow_server_is_waited_for(server, path):
    server.faults = ["slow"]
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


def test_a_silent_server_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(transfer, "SILENCE_SECONDS", 0.5)
    server.faults = ["stall"]
    with pytest.raises(ValueError, match="broke off|cannot be reached"):
        fetch(source(server), path)
    monkeypatch.undo()
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


def test_a_chunk_that_is_cut_off_is_noticed(server, path):
    server.faults = ["chunked"]
    with pytest.raises(ValueError, match=r"broke off \(IncompleteRead\)"):
        fetch(source(server), path)
    fetch(source(server), path)
    assert partial(path).read_bytes() == CONTENT


def test_nobody_there(path):
    with serve(CONTENT) as gone:
        wanted = source(gone)
    with pytest.raises(ValueError, match="cannot be reached .*online.*another machine") as caught:
        fetch(wanted, path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("letter", "words"), [(" ", r"\(InvalidURL\)"), ("é", "'ascii' codec")])
def test_an_address_that_http_cannot_say_is_not_shown(server, path, letter, words):
    with pytest.raises(ValueError, match=rf"file\.pth: cannot be reached .*{words}") as caught:
        fetch(Source(f"{server.address}/file.pth?{SECRET}{letter}&Policy=x", DIGEST), path)
    assert SECRET not in str(caught.value)


def test_no_room_is_said_before_a_byte_is_written(server, path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000))
    with pytest.raises(ValueError, match=r"3\.0 MB are still to come, and the disk has 2\.0 MB free"):
        fetch(source(server), path)
    assert not partial(path).exists()


def test_a_disk_that_fills_up_keeps_what_has_arrived(server, path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device; what has arrived is kept"):
        fetch(source(server), path)
    assert part_size(path) > 0


def test_an_interruption_keeps_what_has_arrived(server, path, monkeypatch):
    read = transfer._read
    blocks = []

    def interrupted(answer, wanted):
        if blocks:
            raise KeyboardInterrupt
        blocks.append(read(answer, wanted))
        return blocks[0]

    monkeypatch.setattr(transfer, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(source(server), path)
    monkeypatch.undo()
    assert part_size(path) == len(blocks[0]) > 0
    fetch(source(server), path)
    assert server.ranges() == [None, f"bytes={len(blocks[0])}-"]
    assert partial(path).read_bytes() == CONTENT
