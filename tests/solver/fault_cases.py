"""Faults of one rank or of both in a run of two, and what must come of each; run by fault_driver.py."""

import errno
import functools
import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from src import assembly
from src.data import CocoDetection, coco
from src.evaluation import coco as evaluator
from src.nn.criterion import DFINECriterion
from src.nn.dfine import DFINE
from src.solver.evaluate import Evaluation
from src.solver.seal import SealedWriter

Original = functools.partial[Any]
Act = Callable[[Original], Any]

ONE_EPOCH = ("epochs=1", "lr_scheduler.flat_epochs=0", "stages=[{start: 0, backbone: frozen}]")
TWO_EPOCHS = ("epochs=2", "stages=[{start: 0, backbone: frozen}, {start: 1, unfreeze_blocks: 2}]")


class Fault(NamedTuple):
    """Where and when something happens in a run.

    Attributes:
        rank: The process that it happens in; None means both.
        owner: Class or module that has the function.
        name: The function's name.
        call: Which of its calls, from 1; None means every one.
        act: Replaces the call; it is given the original, with its arguments.
    """

    rank: int | None
    owner: Any
    name: str
    call: int | None
    act: Act

    def prepare(self, rank: int) -> None:
        """Let it happen in this process, and in those that it forks, if it is of this rank."""
        if self.rank in (None, rank):
            on_call(self.owner, self.name, self.call, self.act)


class Case(NamedTuple):
    """A run, its fault, and what must come of it.

    Attributes:
        fault: What happens.
        statuses: How the ranks must end.
        told: What one rank must tell as it ends, as a pattern; another may only tell that a rank has gone.
        workers: Loader processes of each rank.
        settings: Of the run.
        dataset: Folder of the pictures.
        resumes: Name of the case whose output it goes on from.
    """

    fault: Fault | None = None
    statuses: tuple[int, int] = (0, 0)
    told: str = ""
    workers: int = 0
    settings: tuple[str, ...] = ONE_EPOCH
    dataset: str = "pictures"
    resumes: str = ""


def on_call(owner: Any, name: str, call: int | None, act: Act) -> None:
    """From now on `act` replaces the call-th call of `owner.name`, or every one."""
    original = getattr(owner, name)
    calls = itertools.count(1)

    def replaced(*args: Any, **knobs: Any) -> Any:
        now = next(calls)
        if call in (None, now):
            return act(functools.partial(original, *args, **knobs))
        return original(*args, **knobs)

    setattr(owner, name, replaced)


def place() -> Path:
    """The folder of the case."""
    return Path(os.environ["CASE"])


def mark() -> None:
    """Write down that the fault happens now."""
    with (place() / "fault").open("a") as file:
        file.write(f"{time.monotonic()}\n")


def break_down(_: Original) -> None:
    mark()
    raise ArithmeticError("cannot go on")


def break_down_as_peers_do(_: Original) -> None:
    mark()
    raise RuntimeError("cannot go on")


def get_killed(_: Original) -> None:
    mark()
    os.kill(os.getpid(), signal.SIGKILL)


def have_no_space(_: Original) -> None:
    mark()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def get_sigterm(call: Original) -> Any:
    mark()
    os.kill(os.getpid(), signal.SIGTERM)
    return call()


def get_ctrl_c(call: Original) -> Any:
    """As from a terminal: the loader's workers get it, too."""
    mark()
    os.killpg(os.getpid(), signal.SIGINT)
    return call()


def read_a_cut_picture(_: Original) -> Any:
    whole = next(place().parent.glob("pictures/train/*.jpg"))
    cut = place() / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:600])
    mark()
    return coco.decode_rgb(cut)


def forget_objects(load: Original) -> Any:
    image, target = load()
    return image, target._replace(boxes_xyxy_px=target.boxes_xyxy_px[:0], labels=target.labels[:0])


def lose_numbers(losses: Original) -> Any:
    return {name: loss * float("nan") for name, loss in losses().items()}


def in_checkpoint(number: int, act: Act) -> Fault:
    """The fault in the middle of writing the number-th checkpoint file, which is rank 0's work."""

    def begin(construct: Original) -> None:
        construct()
        writer, file = construct.args
        writer._file = SimpleNamespace(write=file.write)
        on_call(writer._file, "write", 1000, act)

    return Fault(0, SealedWriter, "__init__", number, begin)


BROKEN = r"Traceback .+\nArithmeticError: cannot go on"
CASES = {
    "undisturbed": Case(settings=TWO_EPOCHS),
    "no-objects-on-rank-1": Case(Fault(1, CocoDetection, "load", None, forget_objects)),
    "no-objects-at-all": Case(Fault(None, CocoDetection, "load", None, forget_objects)),
    "unequal-lengths": Case(
        settings=(*ONE_EPOCH, "train_dataloader.drop_last=False"), dataset="seven_and_one"
    ),
    "one-step-not-finite-on-rank-1": Case(Fault(1, DFINECriterion, "forward", 2, lose_numbers)),
    "a-picture-that-cannot-be-read": Case(
        Fault(1, coco, "decode_rgb", 3, read_a_cut_picture),
        statuses=(1, 2),
        told=r"error: picture \S+cut\.jpg cannot be decoded .+",
        workers=1,
    ),
    "exception-in-a-loaders-worker": Case(
        Fault(1, CocoDetection, "load", 3, break_down_as_peers_do),
        statuses=(1, 1),
        told=r"Traceback .+\nRuntimeError: cannot go on",
        workers=1,
    ),
    "a-loaders-worker-killed": Case(
        Fault(1, CocoDetection, "load", 3, get_killed),
        statuses=(1, 1),
        told=r"Traceback .+\nRuntimeError: DataLoader worker [^\n]+",
        workers=1,
    ),
    "exception-while-building": Case(Fault(1, assembly, "build_model", 1, break_down), (1, 1), BROKEN),
    "exception-in-the-forward-pass": Case(Fault(1, DFINE, "forward", 2, break_down), (1, 1), BROKEN),
    "exception-in-the-losses": Case(Fault(0, DFINECriterion, "forward", 2, break_down), (1, 1), BROKEN),
    "exception-in-the-update": Case(Fault(1, torch.optim.AdamW, "step", 2, break_down), (1, 1), BROKEN),
    "exception-in-the-evaluation": Case(Fault(0, Evaluation, "_detect", 1, break_down), (1, 1), BROKEN),
    "exception-in-the-scoring": Case(Fault(0, evaluator, "score", 1, break_down), (1, 1), BROKEN),
    "killed-in-a-step": Case(Fault(0, DFINECriterion, "forward", 3, get_killed), (-signal.SIGKILL, 1)),
    "killed-while-it-writes": Case(in_checkpoint(3, get_killed), (-signal.SIGKILL, 1), settings=TWO_EPOCHS),
    "resumed-after-that": Case(settings=TWO_EPOCHS, resumes="killed-while-it-writes"),
    "disk-full": Case(
        in_checkpoint(3, have_no_space),
        statuses=(2, 1),
        told=r"error: \S+last\.pth: the checkpoint could not be written: No space left on device .+",
        settings=TWO_EPOCHS,
    ),
    "sigterm-to-rank-1": Case(
        Fault(1, DFINECriterion, "forward", 2, get_sigterm), (143, 143), "stopped by SIGTERM"
    ),
    "sigterm-to-rank-1-in-the-evaluation": Case(
        Fault(1, Evaluation, "_detect", 1, get_sigterm), (143, 143), "stopped by SIGTERM"
    ),
    "ctrl-c": Case(
        Fault(None, DFINECriterion, "forward", 2, get_ctrl_c), (130, 130), "stopped by SIGINT", workers=1
    ),
}
