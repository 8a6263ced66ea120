"""Pictures as files: their headers, their pixels, and a fingerprint of what they show.

Legend: P pictures.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..decode import Header, PictureError, check_mode, decode_rgb, has_end, is_turned, read_header
from .findings import Findings

THREADS = min(16, 4 * (os.cpu_count() or 1))  # reading waits more than it computes
GRID = 9  # cells on a side that a picture is averaged to; 2 * 64 comparisons of neighbours
FLATTEST = 8  # grey levels between its darkest and lightest cell; a flatter picture has no fingerprint


class Job(NamedTuple):
    """One picture to look at.

    Attributes:
        name: As the document has it.
        path: Of its file.
        size_hw: As the document says.
        follows_exif: Whether its boxes are known to fit the picture, whatever EXIF says.
    """

    name: str
    path: str
    size_hw: tuple[int, int]
    follows_exif: bool = False


class Seen(NamedTuple):
    """What a look at one picture gave.

    Attributes:
        notes: (code, example) of each finding.
        fingerprint: [128] float32 of -1 and 1; None where it was not decoded, or is of one grey.
    """

    notes: list[tuple[str, str]]
    fingerprint: NDArray[np.float32] | None = None


def check_pictures(jobs: Sequence[Job], findings: Findings, *, decode: bool) -> list[Seen]:
    """Read the header of each picture, and with `decode` its pixels; no file is changed.

    Without `decode`, only those files are decoded in which the mark of their end is not found.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        seen = list(
            tqdm(
                pool.map(lambda job: _look(job, decode=decode), jobs),
                total=len(jobs),
                unit="picture",
                leave=False,
                disable=None,
            )
        )
    by_code: dict[str, list[str]] = {}
    for code, example in (note for look in seen for note in look.notes):
        by_code.setdefault(code, []).append(example)
    for code, examples in by_code.items():
        findings.add(code, examples)
    return seen


def _look(job: Job, *, decode: bool) -> Seen:
    notes: list[tuple[str, str]] = []
    header: Header | None = None
    try:
        header = read_header(job.path, job.size_hw)
        notes += _notes(header, job)
        check_mode(header.mode, job.path)
        if not decode and has_end(job.path):
            return Seen(notes)
        return Seen(notes, fingerprint(decode_rgb(job.path, job.size_hw)))
    except PictureError as error:
        return Seen([*notes, (error.code, job.path + _reason(job, header, error))])


def _reason(job: Job, header: Header | None, error: PictureError) -> str:
    if header is not None and error.code == "picture-size-differs":
        (h, w), (stated_h, stated_w) = header.size_hw, job.size_hw
        return f" ({w}x{h}, stated {stated_w}x{stated_h})"
    return f" ({error.__cause__})" if error.code == "picture-truncated" else ""


def _notes(header: Header, job: Job) -> list[tuple[str, str]]:
    h, w = header.size_hw
    turned = is_turned(header, job.size_hw, job.path)
    kinds = {
        "picture-turned": turned,
        "picture-exif-ignored": header.orientation != 1 and not turned and not job.follows_exif,
        "picture-cmyk": header.mode == "CMYK",
        "picture-16-bit": header.mode.startswith("I;16"),
        "picture-alpha": header.is_transparent,
        "picture-frames": header.frames > 1,
    }
    details = {
        "picture-turned": f" ({w}x{h} stored, EXIF orientation {header.orientation})",
        "picture-exif-ignored": f" (EXIF orientation {header.orientation})",
        "picture-frames": f" ({header.frames} pictures)",
    }
    return [(code, job.name + details.get(code, "")) for code, holds in kinds.items() if holds]


def fingerprint(image: Image.Image) -> NDArray[np.float32] | None:
    """[128] of -1 and 1: whether each cell of a coarse grid is darker than its right and its lower neighbour.

    Known as difference hash. None for a picture that is nearly of one grey.
    """
    small = np.asarray(image.convert("L").resize((GRID, GRID), Image.Resampling.BOX)).astype(np.int16)
    if small.max() - small.min() < FLATTEST:
        return None
    right, down = small[:-1, 1:] > small[:-1, :-1], small[1:, :-1] > small[:-1, :-1]
    return np.where(np.concatenate((right.ravel(), down.ravel())), 1, -1).astype(np.float32)
