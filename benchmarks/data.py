"""Loading of pictures: this project's pipelines against Pillow and torchvision v2, and annotations' memory.

    python -m benchmarks.data [--data FOLDER ANNOTATIONS.json] [--rounds 7] [--json FILE]

Both pipelines hold the steps of configs/dfine/include/dataloader.yml, read the same files and run in turns,
in one thread; the processor's seconds are counted, which are a clock's on an idle machine. Pillow's pipeline
gives what ours gives, uint8 pictures; with `+ float` it also takes the list's last step, to float32 in [0,1],
which ours leaves to the device. Without --data the pictures are drawn.

Memory is that of a process and 8 forked workers that have each read all annotations once: the sum of their
proportional shares, less the same without annotations, and the cache file once. The annotations are made up,
as many as COCO's train2017 has; the other side is COCO's JSON as it stands, a list of dicts for each picture.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from src import door
from src.data import CocoDetection, DemoSettings, build_pipeline, write_demo_dataset
from src.data.annotation_cache import cache_path, load_annotations
from src.deploy.comparison.timing import interleaved

from .pairs import CLOCKS, Way
from .rows import Row, machine, machine_line, report

SIZE_HW = (640, 640)
STRONG = [
    ("RandomPhotometricDistort", {"p": 0.5}),
    ("RandomZoomOut", {"fill": 0}),
    ("RandomIoUCrop", {"p": 0.8}),
]
PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("SanitizeBoundingBoxes", {"min_size": 1}),
    ("RandomHorizontalFlip", {}),
    ("Resize", {}),
    ("SanitizeBoundingBoxes", {"min_size": 1}),
    ("ConvertPILImage", {}),
]
OURS = {"train, strong": STRONG + PLAIN, "train, plain": PLAIN, "evaluation": [PLAIN[2], PLAIN[4]]}
AIMS = {"train, strong": 4.0, "train, plain": None, "evaluation": 1.8}
NUM_PICTURES, NUM_BOXES, NUM_WORKERS = 118_287, 860_000, 8


def torchvisions(name: str) -> list[v2.Transform]:
    """The same steps as torchvision has them."""
    resize = [v2.Resize(SIZE_HW), v2.PILToTensor()]
    plain = [v2.SanitizeBoundingBoxes(min_size=1), v2.RandomHorizontalFlip(), resize[0]]
    plain += [v2.SanitizeBoundingBoxes(min_size=1), resize[1]]
    crop = v2.RandomApply([v2.RandomIoUCrop()], p=0.8)
    strong = [v2.RandomPhotometricDistort(p=0.5), v2.RandomZoomOut(fill=0), crop]
    return {"train, strong": strong + plain, "train, plain": plain, "evaluation": resize}[name]


def epoch_of_ours(dataset: CocoDetection) -> Callable[[], None]:
    """Loads every picture; each call draws anew."""
    epochs = iter(range(1_000_000))

    def call() -> None:
        dataset.set_epoch(next(epochs), strong_augmentation=True)
        for index in range(len(dataset)):
            dataset[index]

    return call


def epoch_of_theirs(dataset: CocoDetection, steps: list[v2.Transform]) -> Callable[[], None]:
    """The same with Pillow and torchvision."""
    packed, transform = dataset.annotations, v2.Compose(steps)

    def call() -> None:
        for index in range(len(dataset)):
            image = Image.open(dataset.img_folder / packed.file_name(index)).convert("RGB")
            boxes, labels = packed.objects(index)
            box_type = {"format": "XYXY", "canvas_size": image.size[::-1]}
            transform(image, {"boxes": tv_tensors.BoundingBoxes(boxes, **box_type), "labels": labels})

    return call


def measure_pipelines(folder: Path, annotations: Path, rounds: int) -> list[Row]:
    """Each pipeline against both forms of the other; medians are of a picture."""
    rows = []
    for name, ops in OURS.items():
        pipeline = build_pipeline(ops, (), SIZE_HW)
        dataset = CocoDetection(folder, annotations, pipeline, drop_empty_boxes=True)
        steps = torchvisions(name)
        floats = [*steps, v2.ToDtype(torch.float32, scale=True)]
        calls = [epoch_of_ours(dataset), epoch_of_theirs(dataset, steps), epoch_of_theirs(dataset, floats)]
        torch.manual_seed(0)
        times = interleaved(calls, repeats=rounds, warm_up=1, clock=CLOCKS["cpu"])
        ours, *others = (statistics.median(row) / len(dataset) for row in times)
        for against, theirs in zip(("Pillow + torchvision", "the same, + float"), others, strict=True):
            medians, way = (ours, theirs), Way(rounds, 1, "cpu")
            ratio = theirs / ours
            rows.append(
                Row(f"pipeline, {name}, a picture", against, ratio, "x", AIMS[name], False, medians, *way)
            )
    return rows


def write_annotations(path: Path) -> None:
    """An annotation file of the size of COCO's train2017, without outlines."""
    random = np.random.default_rng(0)
    owners = np.sort(random.integers(0, NUM_PICTURES, NUM_BOXES)).tolist()
    boxes = np.round(random.uniform(1, 200, (NUM_BOXES, 4)), 2).tolist()
    kinds = random.integers(1, 81, NUM_BOXES).tolist()
    images = [
        {"id": 3 * k, "file_name": f"{3 * k:012}.jpg", "height": 480, "width": 640}
        | {"license": 3, "coco_url": f"http://images.cocodataset.org/train2017/{3 * k:012}.jpg"}
        for k in range(NUM_PICTURES)
    ]
    objects = [
        {"id": k, "image_id": 3 * owner, "category_id": kind, "bbox": box, "area": 99.5, "iscrowd": 0}
        for k, (owner, kind, box) in enumerate(zip(owners, kinds, boxes, strict=True))
    ]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 81)]
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))


def read_nothing(path: Path) -> Callable[[], None]:  # noqa: ARG001 (stands beside the others)
    """What a process costs that keeps nothing, and takes as often what a picture's objects take.

    A small allocation goes where the parent left a gap, and so makes a page the worker's own.
    """
    boxes, labels = torch.zeros(NUM_BOXES // NUM_PICTURES, 4), torch.zeros(NUM_BOXES // NUM_PICTURES)

    def read() -> None:
        for _ in range(NUM_PICTURES):
            boxes.clone(), labels.clone()

    return read


def read_dicts(path: Path) -> Callable[[], None]:
    """Annotations as COCO's tools keep them; the call reads each once."""
    document = json.loads(path.read_bytes())
    of_picture: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in document["annotations"]:
        of_picture[entry["image_id"]].append(entry)

    def read() -> None:
        for image in document["images"]:
            for entry in of_picture[image["id"]]:
                _ = image["file_name"], entry["bbox"], entry["category_id"]

    return read


def read_packed(path: Path) -> Callable[[], None]:
    """Annotations as this project keeps them; the call reads each once."""
    packed = load_annotations(path)

    def read() -> None:
        for index in range(len(packed.image_ids)):
            packed.file_name(index)
            packed.objects(index)

    return read


READERS = {"none": read_nothing, "dicts": read_dicts, "json": read_packed, "cache": read_packed}


def proportional_share() -> int:
    """Bytes of this process, pages that k processes share counted as a k-th, without files (Linux).

    A library's pages are shared with whatever else runs on the machine, which would change the sum.
    """
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def measure_reader(kind: str, path: str, connection: Any) -> None:
    """In a process of its own: the seconds that reading takes, and the bytes of it and its workers."""
    torch.set_num_threads(1)
    wall, processor = time.perf_counter(), time.process_time()
    read = READERS[kind](Path(path))
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    context = multiprocessing.get_context("fork")
    done, shares = context.Barrier(NUM_WORKERS + 1), context.SimpleQueue()

    def work() -> None:
        read()
        done.wait()
        shares.put(proportional_share())
        done.wait()

    workers = [context.Process(target=work, daemon=True) for _ in range(NUM_WORKERS)]
    for worker in workers:
        worker.start()
    done.wait()
    total = proportional_share() + sum(shares.get() for _ in workers)
    done.wait()
    connection.send({**seconds, "bytes": total})


def measure_annotations() -> dict[str, dict[str, float]]:
    """Seconds and bytes of each way to keep annotations."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        path = Path(folder) / "instances.json"
        write_annotations(path)
        for kind in READERS:  # "json" leaves the cache that "cache" finds
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=measure_reader, args=(kind, str(path), theirs))
            process.start()
            theirs.close()  # so that its death would end the wait
            found[kind] = ours.recv()
            process.join()
        for kind in ("json", "cache"):  # what is mapped is a file, and all of it may be in memory
            found[kind]["bytes"] += cache_path(path).stat().st_size
        found["cache"]["json_bytes"] = path.stat().st_size
    for kind in list(found)[::-1]:
        found[kind]["bytes"] -= found["none"]["bytes"]
    return found


def annotation_rows(found: dict[str, dict[str, float]]) -> list[Row]:
    """Memory of all processes, and how long reading the cache takes."""
    dicts, cache = found["dicts"], found["cache"]
    work = f"annotations of {NUM_PICTURES:,} pictures, {NUM_WORKERS} workers"
    took, way = cache["seconds"], Way(1, 1, "wall")
    return [
        Row(f"{work}, memory", "lists of dicts", dicts["bytes"] / cache["bytes"], "x", 50.0),
        Row(f"{work}, memory", "", cache["bytes"] / 1e6, "MB", 60.0, at_most=True),
        Row("the same, read from the cache", "", took, "s", 2.0, True, (took,), *way),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs=2, type=Path, metavar=("FOLDER", "ANNOTATIONS"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--no-memory", action="store_true", help="leave the annotations out (they take minutes)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    described = machine()
    print(machine_line(described), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            demo = Path(folder) / "demo"
            write_demo_dataset(demo, DemoSettings(num_train=16, num_val=1, size=640))
            args.data = demo / "train", demo / "annotations" / "instances_train.json"
        rows = measure_pipelines(*args.data, args.rounds)
    annotations = {} if args.no_memory else measure_annotations()
    if annotations:
        rows += annotation_rows(annotations)
    report(described, rows, args.json, annotations=annotations)


if __name__ == "__main__":
    sys.exit(door.run(main))
