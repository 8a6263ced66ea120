"""The service under load on loopback: many at once, one in ten a bad request; memory, and what was lost.

    python -m benchmarks.serving -m MODEL -i PICTURES [--requests 2000] [--at-once 32] [--bad 0.1]

Starts `tools/serve.py` as a process of its own, asks it, tells it to stop. Good requests are forms of one
picture, and every fourth JSON of two; each answer is compared with what `Detector` gives for the files. Bad
ones take turns: what is no picture, half a picture, a PNG of 100 megapixels, wrong fields, a body of 50 MB. A
service that works answers each with the status that is written beside it. Memory is the service's resident
set, read from /proc five times a second. Both share this machine's cores: times are not the service's alone.
"""

import argparse
import asyncio
import base64
import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import torch
from PIL import Image

from src.deploy import Detector, Result, find_pictures
from src.deploy.comparison.machine import this_machine

ROOT = Path(__file__).resolve().parents[1]
BORDER = 1e-4  # of the threshold: whether such a detection is in an answer is left to rounding
BODY_BYTES = 50_000_000


class Ask(NamedTuple):
    """A request: what kind it is, the status that it must get, and the pictures that are in it."""

    kind: str
    status: int
    arguments: dict[str, Any]
    pictures: tuple[int, ...] = ()


class Reply(NamedTuple):
    """What came of a request; `status` is 0 where no answer came."""

    ask: Ask
    status: int
    seconds: float
    body: bytes


class Differences(NamedTuple):
    """Largest ones between the service and `Detector`; `unmatched` counts detections that one alone has."""

    score: float
    box_px: float
    unmatched: int


def bad_asks(picture: bytes, body_bytes: int = BODY_BYTES, bomb_side: int = 10_000) -> list[Ask]:
    """One of each kind of request that is refused."""
    packed = io.BytesIO()
    Image.new("1", (bomb_side, bomb_side)).save(packed, "PNG")
    return [
        Ask("not a picture", 400, {"files": [("files", ("notes.txt", b"no picture at all"))]}),
        Ask("truncated", 400, {"files": [("files", ("half.jpg", picture[: len(picture) // 2]))]}),
        Ask("100-megapixel bomb", 413, {"files": [("files", ("bomb.png", packed.getvalue()))]}),
        Ask("wrong fields", 422, {"files": [("picture", ("a.jpg", picture))], "data": {"threshold": "7"}}),
        Ask(
            "50 MB body",
            413,
            {"content": bytes(body_bytes), "headers": {"content-type": "multipart/form-data; boundary=x"}},
        ),
    ]


def good_ask(files: Sequence[bytes], number: int) -> Ask:
    """The request of this number."""
    first = number % len(files)
    if number % 4:
        return Ask("form", 200, {"files": [("files", (f"{first}.jpg", files[first]))]}, (first,))
    both = (first, (first + 1) % len(files))
    images = [base64.b64encode(files[one]).decode() for one in both]
    return Ask("JSON", 200, {"json": {"images": images}}, both)


def plan(files: Sequence[bytes], num_requests: int, bad: Sequence[Ask], bad_share: float) -> list[Ask]:
    """All requests, the bad ones scattered among the good."""
    num_bad = round(num_requests * bad_share)
    asks = [good_ask(files, number) for number in range(num_requests - num_bad)]
    asks += [bad[number % len(bad)] for number in range(num_bad)]
    random.Random(0).shuffle(asks)
    return asks


async def ask_all(url: str, asks: Sequence[Ask], at_once: int) -> list[Reply]:
    """Send all requests, so many at once, each once."""
    left = iter(asks)
    replies: list[Reply] = []

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120) as session:
            for ask in left:
                started = time.perf_counter()
                try:
                    answer = await session.post("/predict", **ask.arguments)
                    status, body = answer.status_code, answer.content
                except httpx.HTTPError as error:
                    status, body = 0, repr(error).encode()
                replies.append(Reply(ask, status, time.perf_counter() - started, body))

    await asyncio.gather(*(client() for _ in range(at_once)))
    return replies


def compare(body: bytes, expected: Sequence[Result], threshold: float) -> Differences:
    """How far an answer is from what the detector itself gives."""
    score = box = 0.0
    unmatched = 0
    for one, result in zip(json.loads(body)["results"], expected, strict=True):
        assert (one["height"], one["width"]) == result.size_hw
        came = [(d["label"], d["score"], d["box"]) for d in one["detections"]]
        rows = zip(result.labels.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True)
        for label, s, corners in rows:
            near = [
                (max(abs(a - b) for a, b in zip(corners, other[2], strict=True)), abs(other[1] - s), place)
                for place, other in enumerate(came)
                if other[0] == label
            ]
            best = min(near, default=(np.inf, np.inf, 0))
            if best[0] > 1:
                unmatched += s > threshold + BORDER
                continue
            box, score = max(box, best[0]), max(score, best[1])
            del came[best[2]]
        unmatched += sum(s > threshold + BORDER for _, s, _ in came)
    return Differences(score, box, unmatched)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, "Linux tells it"
    return int(found[1]) * 1024 / 1e6


class Running(NamedTuple):
    """A service: its address, its process, and the lines that it has said."""

    url: str
    pid: int
    log: list[str]


@contextmanager
def service(model: Path, *arguments: str, stop: signal.Signals = signal.SIGTERM) -> Iterator[Running]:
    """A service while the block runs; then it must end as `stop` says.

    Raises:
        ValueError: It does not start, or ends in another way.
    """
    command = [sys.executable, "tools/serve.py", "-m", str(model.resolve()), "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log: list[str] = []
    address = None
    try:
        while address is None and (line := process.stderr.readline()):
            log.append(line)
            address = re.search(r"listening at (http://\S+)", line)
        if address:
            yield Running(address[1], process.pid, log)
    finally:
        process.send_signal(stop)
        log += process.communicate()[1].splitlines(keepends=True)
    if not address or process.returncode != 128 + stop:
        raise ValueError(f"{' '.join(command)} ended with status {process.returncode}: {''.join(log)}")


async def watched(url: str, pid: int, asks: Sequence[Ask], at_once: int) -> tuple[list[Reply], list[float]]:
    """All replies, and the service's memory while they came."""
    memory = [resident_mb(pid)]

    async def watch() -> None:
        while True:
            memory.append(resident_mb(pid))
            await asyncio.sleep(0.2)

    watcher = asyncio.create_task(watch())
    replies = await ask_all(url, asks, at_once)
    watcher.cancel()
    await asyncio.sleep(1)
    return replies, [*memory, resident_mb(pid)]


def summarize(replies: Sequence[Reply], expected: Sequence[Result], threshold: float) -> dict[str, Any]:
    """What is told of a run."""
    kinds: dict[str, Any] = {}
    for kind in sorted({reply.ask.kind for reply in replies}):
        mine = [reply for reply in replies if reply.ask.kind == kind]
        told = Counter(json.loads(reply.body)["detail"] for reply in mine if 400 <= reply.status < 500)
        kinds[kind] = {
            "requests": len(mine),
            "expected": mine[0].ask.status,
            "statuses": dict(Counter(reply.status for reply in mine)),
            "reasons": dict(told),
            "median_s": float(np.median([reply.seconds for reply in mine])),
            "p99_s": float(np.percentile([reply.seconds for reply in mine], 99)),
        }
    good = [reply for reply in replies if reply.status == 200]
    each = [compare(one.body, [expected[i] for i in one.ask.pictures], threshold) for one in good]
    worst = Differences(
        max(one.score for one in each), max(one.box_px for one in each), sum(one.unmatched for one in each)
    )
    wrong = sum(reply.status != reply.ask.status for reply in replies)
    return {"kinds": kinds, "wrong": wrong, "differences": worst._asdict()}


def report(found: dict[str, Any], memory: Sequence[float], seconds: float) -> None:
    """Print the tables."""
    print("| request | number | must get | got | median | 99 % |\n|---|---|---|---|---|---|")
    for kind, row in found["kinds"].items():
        got = ", ".join(f"{status} ({count})" for status, count in row["statuses"].items())
        times = f"{row['median_s'] * 1e3:.0f} ms | {row['p99_s'] * 1e3:.0f} ms"
        print(f"| {kind} | {row['requests']} | {row['expected']} | {got} | {times} |")
    quarters = [memory[len(memory) * part // 4] for part in (1, 2, 3)]
    told = ", ".join(f"{value:.0f}" for value in quarters)
    print(
        f"memory: {memory[0]:.0f} MB before, {told} MB after each quarter of the time, {memory[-1]:.0f} MB "
        f"at the end, {max(memory):.0f} MB at most; {seconds:.0f} s\nwrong statuses: {found['wrong']}; "
        f"against Detector: {found['differences']}"
    )


def main() -> None:
    """Run, print, write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder of JPEG pictures")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--bad", type=float, default=0.1, help="share of bad requests (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=0, help="of an exported file (%(default)s: one a core)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    args = parser.parse_args()
    paths = find_pictures(args.input)
    files = [path.read_bytes() for path in paths]
    threshold = 0.4
    expected = list(Detector.load(args.model).stream(paths, threshold))
    asks = plan(files, args.requests, bad_asks(files[0]), args.bad)
    with service(args.model, "--threads", str(args.threads)) as (url, pid, _):
        asyncio.run(ask_all(url, asks[: args.at_once], args.at_once))  # what is made once is not measured
        started = time.perf_counter()
        replies, memory = asyncio.run(watched(url, pid, asks, args.at_once))
        seconds = time.perf_counter() - started
        metrics = httpx.get(f"{url}/metrics").text
    found = summarize(replies, expected, threshold)
    print(f"{this_machine(torch.device('cpu')).line()}\n")
    report(found, memory, seconds)
    calls = {
        name: float(value) for name, value in re.findall(r"^dfine_batch_pictures_(\w+) (\S+)$", metrics, re.M)
    }
    print(f"{calls['sum'] / calls['count']:.2f} pictures in a call of the detector, in the mean")
    if args.json is not None:
        args.json.write_text(json.dumps({**found, "memory_mb": memory, "seconds": seconds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
