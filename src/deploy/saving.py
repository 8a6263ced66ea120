"""What is left in a folder after a prediction: pictures, a video, COCO's results format, a table."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..files import staged_folder
from .detector import OVERLAP, THRESHOLD, Detector
from .results import Result
from .sources import SUFFIXES, Source, is_moving, list_sources
from .video import FALLBACK_RATE, VideoWriter, video_facts

COCO_FILE = "detections.json"
CSV_FILE = "detections.csv"
COLUMNS = ("image_id", "file_name", "frame", "category_id", "class_name", "score", "x0", "y0", "x1", "y1")

Add = Callable[[Result, int], None]


class Summary(NamedTuple):
    """What was written.

    Attributes:
        num_pictures: Pictures and frames looked at.
        num_detections: Detections in them.
        output: The folder.
    """

    num_pictures: int
    num_detections: int
    output: Path


def save_results(
    detector: Detector,
    source: str,
    output: Path,
    *,
    kinds: Sequence[str] | None = None,
    threshold: float = THRESHOLD,
    batch_size: int = 1,
    slice_px: int | None = None,
    overlap: float = OVERLAP,
    max_frames: int | None = None,
) -> Summary:
    """Detect in `source` and write what is found, with a progress bar where there is a terminal.

    Everything appears in `output` at the end, or nothing does.

    Args:
        detector: Detects.
        source: A picture, folder, pattern or video, or the number of a camera.
        output: Folder for the results, made where it is missing; files of the same names are replaced.
        kinds: Which of `WRITERS` to write; None takes coco with pictures or video, as the source is.
        threshold: As of a call of the detector, like the two after it.
        batch_size: See there.
        slice_px: See there.
        overlap: See there.
        max_frames: Stop after so many pictures or frames; a camera needs it.

    Raises:
        ValueError: No picture is found, one cannot be read, something else is asked for that cannot be, or
            `output` is where the pictures are.
    """
    sources = list_sources(int(source) if source.isdecimal() and not Path(source).exists() else source)
    moving = is_moving(sources[0])
    kinds = tuple(dict.fromkeys(kinds or ("video" if moving else "pictures", "coco")))
    _check(sources, output, kinds, max_frames)
    found = detector.stream(sources, threshold, batch_size=batch_size, slice_px=slice_px, overlap=overlap)
    ids = count(1) if moving else iter(image_ids([one for one in sources if isinstance(one, Path)]))
    num_pictures = num_detections = 0
    with staged_folder(output) as folder, ExitStack() as stack:
        writers = [WRITERS[kind](folder, stack) for kind in kinds]
        total, unit = _total(sources, max_frames), "frame" if moving else "picture"
        for result in tqdm(islice(found, max_frames), total=total, unit=unit, disable=None):
            image_id = next(ids)
            for add in writers:
                add(result, image_id)
            num_pictures += 1
            num_detections += len(result.scores)
    return Summary(num_pictures, num_detections, output)


def _check(sources: Sequence[Source], output: Path, kinds: Sequence[str], max_frames: int | None) -> None:
    """Refuse what cannot be written as it is asked for."""
    unknown = [kind for kind in kinds if kind not in WRITERS]
    if unknown:
        raise ValueError(f"saving {', '.join(unknown)} was asked for, allowed are {', '.join(WRITERS)}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"{max_frames} frames were asked for, allowed are 1 or more")
    moving = [is_moving(source) for source in sources]
    if any(moving) and not all(moving):
        raise ValueError("pictures and videos came together; name them one after another")
    if "video" in kinds and not any(moving):
        raise ValueError("a video was asked for, but pictures came; save pictures")
    if max_frames is None and any(isinstance(source, int) for source in sources):
        raise ValueError("a camera has no end; say after how many frames to stop")
    paths = [source for source in sources if isinstance(source, Path)]
    if any(output.resolve() == path.parent.resolve() for path in paths):
        raise ValueError(f"{output}: the results would replace the pictures; give another output folder")
    names = Counter(path.stem if is_moving(path) else path.name for path in paths)
    name, times = names.most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise ValueError(f"{times} files are called {name}, and so would their results; name them one by one")


def _total(sources: Sequence[Source], max_frames: int | None) -> int | None:
    """How many pictures and frames there are, as far as it is known."""
    counts = [
        video_facts(one).num_frames if isinstance(one, Path) and is_moving(one) else 1 for one in sources
    ]
    known = [number for number in counts if number is not None]
    if len(known) < len(counts) or isinstance(sources[0], int):
        return max_frames
    return sum(known) if max_frames is None else min(sum(known), max_frames)


def image_ids(paths: Sequence[Path]) -> list[int]:
    """COCO's id of each picture: its name, if all names are numbers of their own, or else 1, 2, 3 ..."""
    stems = [path.stem for path in paths]
    if all(stem.isascii() and stem.isdecimal() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


def _pictures(folder: Path, _: ExitStack) -> Add:
    """Each picture with its boxes drawn, under its file's name."""

    def add(result: Result, _: int) -> None:
        result.plot().save(folder / _picture_name(result), quality=95)

    return add


def _picture_name(result: Result) -> str:
    if result.frame is not None:
        return f"{Path(result.name).stem}_{result.frame:06d}.jpg"
    known = Path(result.name).suffix.lower() in SUFFIXES  # what can be written
    return result.name if known else f"{result.name}.png"


def _video(folder: Path, stack: ExitStack) -> Add:
    """Each video again, with boxes drawn and without its sound."""
    writers: dict[str, VideoWriter] = {}

    def add(result: Result, _: int) -> None:
        if result.name not in writers:
            rate = video_facts(result.path).rate if result.path else FALLBACK_RATE
            writer = VideoWriter(folder / f"{Path(result.name).stem}.mp4", rate)
            writers[result.name] = stack.enter_context(writer)
        writers[result.name].add(result.plot())

    return add


def _coco(folder: Path, stack: ExitStack) -> Add:
    """COCO's results format, a record on each line."""
    file = stack.enter_context((folder / COCO_FILE).open("w", encoding="utf-8"))
    separator = "[\n"

    def add(result: Result, image_id: int) -> None:
        nonlocal separator
        for record in result.to_coco(image_id):
            file.write(separator + json.dumps(record, ensure_ascii=False, allow_nan=False))
            separator = ",\n"

    stack.callback(lambda: file.write("[]\n" if separator == "[\n" else "\n]\n"))
    return add


def _csv(folder: Path, stack: ExitStack) -> Add:
    """A table with a row for each detection."""
    file = stack.enter_context((folder / CSV_FILE).open("w", encoding="utf-8", newline=""))
    table = csv.writer(file)
    table.writerow(COLUMNS)

    def add(result: Result, image_id: int) -> None:
        frame = "" if result.frame is None else result.frame
        rows = zip(result.labels.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True)
        for label, score, corners in rows:
            kind = (result.classes.ids[label], result.names[label])
            box = [round(corner, 3) for corner in corners]
            table.writerow((image_id, result.name, frame, *kind, round(score, 6), *box))

    return add


WRITERS: dict[str, Callable[[Path, ExitStack], Add]] = {
    "pictures": _pictures,
    "video": _video,
    "coco": _coco,
    "csv": _csv,
}
