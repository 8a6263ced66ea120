"""What a run writes down: log lines, metrics by step, and TensorBoard's files."""

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .. import distributed
from ..files import make_folder, write_whole
from .progress import Progress

__all__ = [
    "MetricsLog",
    "Progress",
    "TensorboardLog",
    "picture_grid",
    "setup_logging",
    "writing_in",
]

OWN_LOGGERS = (__name__.partition(".")[0], "__main__")


def setup_logging(output_dir: Path | None) -> None:
    """Send this program's log lines to stderr, and on the main rank to `output_dir`/log.txt.

    The main rank speaks from INFO on, other ranks and other libraries from WARNING on. A second call
    replaces what the first one set up.
    """
    number = distributed.rank() or int(os.environ.get("RANK", "0"))  # before ranks join
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h, _ConsoleHandler | _LogFileHandler)]:
        root.removeHandler(earlier)
        earlier.close()
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    if output_dir is not None and number == 0:
        handlers.append(_LogFileHandler(make_folder(output_dir) / "log.txt", encoding="utf-8"))
    rank = f" rank {number}" if number else ""
    for handler in handlers:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s{rank} %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        root.addHandler(handler)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING if number else logging.INFO)


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Inside, a file of `folder` that cannot be written is the user's fault, as on a full disk.

    Raises:
        ValueError: With the folder, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{folder}: a file cannot be written there: {error.strerror or error}; make room or choose "
            "another --output-dir, and go on from the newest checkpoint (-r auto)"
        ) from error


class _ConsoleHandler(logging.Handler):
    """Writes to stderr, as it is at the time, above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except OSError:  # a terminal that is gone must not end the run
            self.handleError(record)


class _LogFileHandler(logging.FileHandler):
    """The run's log.txt, told apart from handlers that others set up."""


class MetricsLog:
    """metrics.jsonl: one JSON object a line, each with the `step` it belongs to; the main rank alone writes.

    Args:
        output_dir: Folder of the file.
        resume_step: Optimizer steps that the run has behind it. Lines of later steps, written by a run that
            was cut off after its checkpoint, and a half-written line are dropped: nothing stands there twice.
            None keeps all lines, and the file itself, which a running training may be writing to.
    """

    def __init__(self, output_dir: Path, *, resume_step: int | None = 0) -> None:
        self.path = output_dir / "metrics.jsonl"
        self._file: IO[str] | None = None
        if not distributed.is_main():
            return
        output_dir.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and (resume_step is not None or _ends_unfinished(self.path)):
            _drop_later_lines(self.path, math.inf if resume_step is None else resume_step)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line; numbers of NumPy and torch become JSON's, and those that are not finite null.

        Args:
            record: Numbers, strings, None, by name; `step` among them.
        """
        assert "step" in record, "a line of metrics states its step, so that a resumed run can drop it"
        if self._file is not None:
            self._file.write(
                json.dumps({k: _json_value(v) for k, v in record.items()}, allow_nan=False) + "\n"
            )
            self._file.flush()

    def close(self) -> None:
        """End the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ends_unfinished(path: Path) -> bool:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        return file.read() not in (b"", b"\n")


def _drop_later_lines(path: Path, step: float) -> None:
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and record.get("step", 0) <= step:
            kept.append(line + "\n")
    write_whole(path, "".join(kept).encode())


def _json_value(value: object) -> object:
    if isinstance(value, Tensor | np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorboardLog:
    """TensorBoard's event files; the main rank alone writes.

    Args:
        summary_dir: Folder of the files.
        resume_step: Optimizer steps that the run has behind it; TensorBoard hides what a run that was cut off
            wrote for later ones.
    """

    def __init__(self, summary_dir: Path | str, *, resume_step: int = 0) -> None:
        self._writer: Any = None
        if distributed.is_main():
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed to evaluate

            purge = resume_step + 1 if resume_step else None
            self._writer = SummaryWriter(str(summary_dir), purge_step=purge)  # type: ignore[no-untyped-call]

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point for each named number."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def images(
        self, pictures: Sequence[Image.Image | NDArray[np.uint8]], step: int, *, tag: str = "detections"
    ) -> None:
        """The pictures (PIL, or uint8 [H, W, 3]; sizes may differ) side by side in one grid."""
        if self._writer is not None and pictures:
            self._writer.add_image(tag, picture_grid(pictures), step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Write what is left; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "TensorboardLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def picture_grid(pictures: Sequence[Image.Image | NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The pictures in a nearly square grid [rows * H, columns * W, 3] of cells that hold the largest."""
    tiles = [np.asarray(p.convert("RGB")) if isinstance(p, Image.Image) else p for p in pictures]
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = (max(tile.shape[side] for tile in tiles) for side in (0, 1))
    grid = np.full((math.ceil(len(tiles) / columns) * height, columns * width, 3), 114, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * height, i % columns * width
        grid[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return grid
