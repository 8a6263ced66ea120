"""A run's checkpoints: the newest few and the best, kept so that a kill at any moment leaves a good one."""

import logging
import math
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from .checkpoint import (
    REPLACE,
    Checkpoint,
    read_checkpoint,
    save_checkpoint,
    sync_folder,
    temporary_of,
    written,
)

logger = logging.getLogger(__name__)

LEFT_BY_A_RUN = (
    "metrics.jsonl",
    "metrics.csv",
    "eval.json",
    "curves.png",
    "report.html",
    "report",
    "config.yml",
    "log.txt",
    "summary",
    "bad_step_*.pth",
)
"""What a run's folder holds beside checkpoints, of this package's making."""
_UNFINISHED = ".unfinished"


class CheckpointFolder:
    """`last.pth`, the ones before it as `last.1.pth`, `last.2.pth`, ..., and `best.pth` in one folder.

    One process writes there at a time.

    Args:
        folder: Made by the first save where it is absent.
        keep: How many of the newest are kept, `last.pth` among them.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    @property
    def last(self) -> Path:
        """The newest checkpoint's place."""
        return self.folder / "last.pth"

    @property
    def best(self) -> Path:
        """The best checkpoint's place."""
        return self.folder / "best.pth"

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write `state` to `last.pth`; what was there becomes `last.1.pth`, and so on, the oldest is dropped.

        Raises:
            ValueError: It cannot be written, as on a full disk; the checkpoints that were there remain.
            TypeError: A value is of a kind that no checkpoint holds.
        """
        self._clear()
        with written(self.last, state) as temporary:
            self._shift()
            os.replace(temporary, self.last)
            sync_folder(self.folder)
        with suppress(OSError):  # of an earlier run that kept more
            for number, path in self._numbered():
                if number >= self.keep:
                    path.unlink()

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write `state` to `best.pth`; errors are `save_last`'s."""
        self._clear()
        save_checkpoint(self.best, state)

    def newest_good(self) -> Checkpoint | None:
        """The first of `last.pth`, `last.1.pth`, ..., `best.pth` that is whole.

        Each damaged one before it is named in a warning. None where there is no checkpoint of this run; those
        of a run that is being set aside are not.

        Raises:
            ValueError: There are checkpoints and all are damaged; it says why each is.
        """
        if self._half_aside() is not None:
            return None
        faults: list[str] = []
        for path in self._checkpoints():
            try:
                content = read_checkpoint(path)
            except ValueError as error:
                faults.append(str(error).removesuffix(f"; {REPLACE}"))
                continue
            for fault in faults:
                logger.warning("%s; taking %s instead", fault, path)
            return Checkpoint(path, content)
        if not faults:
            return None
        raise ValueError(
            "\n  ".join([f"{self.folder}: none of its checkpoints can be read:", *faults])
            + "\nBring one from a copy, or start anew without -r: these are then set aside"
        )

    def set_aside(self) -> Path | None:
        """Move the checkpoints of an earlier run, and what tells of it, to a folder `previous-N`.

        A kill in the middle leaves them half moved; the next call, or save, moves the rest.

        Returns:
            The folder; None where nothing tells of an earlier run.

        Raises:
            ValueError: They cannot be moved.
        """
        half = self._half_aside()
        moving = self._checkpoints()
        if half is None and not moving and not (self.folder / LEFT_BY_A_RUN[0]).exists():
            return None
        moving += [path for pattern in LEFT_BY_A_RUN for path in sorted(self.folder.glob(pattern))]
        try:
            if half is None:
                half = self._next_aside()
                half.mkdir()
            for path in moving:
                os.replace(path, half / path.name)
            aside = half.with_suffix("")
            os.replace(half, aside)
            sync_folder(aside)
            sync_folder(self.folder)
        except OSError as error:
            raise ValueError(
                f"{self.folder}: the checkpoints of an earlier run cannot be moved aside: {error}; "
                "choose another --output-dir, or go on from them with -r"
            ) from error
        names = ", ".join(sorted(path.name for path in aside.iterdir()))
        logger.info("set aside what an earlier run left in %s: %s are in %s now", self.folder, names, aside)
        return aside

    def where_now(self, path: Path) -> Path:
        """`path`, or where it lies since `set_aside` moved it."""
        if path.exists() or path.resolve().parent != self.folder.resolve():
            return path
        moved = self.folder.glob(f"previous-*/{path.name}")
        return max(moved, key=lambda found: found.parent.stat().st_mtime_ns, default=path)

    def claim(self, resumed: Path | None, *, step: int) -> None:
        """Make the folder that of the run which begins; what other runs left there is set aside, not lost.

        `newest_good` is then the checkpoint that the run goes on from, or None.

        Args:
            resumed: That checkpoint, if any; it becomes `last.pth`. From another folder the best one beside
                it comes along.
            step: Steps that the run has behind it; checkpoints of later ones, and damaged ones, go aside or
                stay behind.

        Raises:
            ValueError: Files cannot be moved or copied.
        """
        if resumed is None:
            self.set_aside()
        elif resumed.resolve().parent != self.folder.resolve():
            self.set_aside()
            self._adopt(resumed, self.last)
            best = resumed.with_name(self.best.name)
            if best.exists() and _step_of(best) <= step:
                self._adopt(best, self.best)
        elif resumed.name != self.last.name:
            self._set_aside_later(step)
            self._adopt(resumed, self.last)

    def _set_aside_later(self, step: int) -> None:
        later = [path for path in self._checkpoints() if _step_of(path) > step]
        if not later:
            return
        aside = self._next_aside().with_suffix("")
        try:
            aside.mkdir()
            for path in later:
                os.replace(path, aside / path.name)
            sync_folder(self.folder)
        except OSError as error:
            raise ValueError(
                f"{self.folder}: its later checkpoints cannot be moved aside: {error}"
            ) from error
        names = ", ".join(path.name for path in later)
        logger.info("set aside what comes after step %d: %s are in %s now", step, names, aside)

    def _adopt(self, theirs: Path, own: Path) -> None:
        temporary = temporary_of(own)
        try:
            temporary.unlink(missing_ok=True)
            try:
                os.link(theirs.resolve(), temporary)
            except OSError:  # another file system, or one without links
                shutil.copyfile(theirs, temporary)
            if own == self.last:
                self._shift()
            os.replace(temporary, own)
        except OSError as error:
            raise ValueError(f"{theirs} cannot be copied to {self.folder}: {error}") from error

    def _shift(self) -> None:
        """Make room at `last.1.pth` and put `last.pth` there, which stays where it is where links exist."""
        kept = [self.last, *(self.folder / f"last.{i}.pth" for i in range(1, self.keep))]
        # a save that was cut off may have left a gap, or shifted already
        if self.keep == 1 or not self.last.exists() or (kept[1].exists() and kept[1].samefile(self.last)):
            return
        free = next((i for i, path in enumerate(kept) if not path.exists()), self.keep - 1)
        for i in range(free, 1, -1):
            os.replace(kept[i - 1], kept[i])
        kept[1].unlink(missing_ok=True)  # where two are kept, it is the oldest
        try:
            os.link(self.last, kept[1])
        except OSError:  # a file system without links
            os.replace(self.last, kept[1])

    def _clear(self) -> None:
        """Remove what a killed save left, and complete a setting aside that was cut off."""
        with suppress(OSError):  # writing will say it better
            for path in (self.last, self.best):
                temporary_of(path).unlink(missing_ok=True)
        if self._half_aside() is not None:
            self.set_aside()

    def _checkpoints(self) -> list[Path]:
        """Those that exist, the newest first, the best at the end."""
        newest = [path for _, path in sorted(self._numbered())]
        return [path for path in (self.last, *newest, self.best) if path.exists()]

    def _numbered(self) -> list[tuple[int, Path]]:
        found = {
            path: re.fullmatch(r"last\.(\d+)\.pth", path.name) for path in self.folder.glob("last.*.pth")
        }
        return [(int(match[1]), path) for path, match in found.items() if match]

    def _half_aside(self) -> Path | None:
        return next(self.folder.glob(f"previous-*{_UNFINISHED}"), None)

    def _next_aside(self) -> Path:
        free = next(i for i in count(1) if not (self.folder / f"previous-{i}").exists())
        return self.folder / f"previous-{free}{_UNFINISHED}"


def _step_of(path: Path) -> float:
    """The step that a checkpoint was written after; a damaged one is later than any."""
    try:
        return int(read_checkpoint(path).get("step", 0))
    except ValueError:
        return math.inf
