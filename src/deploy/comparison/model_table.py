"""What a comparison of models says: one table, and the same as plain values."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..table import table
from .machine import Machine
from .model_info import ModelInfo
from .timing import Timing


class Speed(NamedTuple):
    """How fast one runtime runs one model.

    Attributes:
        runtime: What ran it, and where.
        single: Calls with one picture.
        batched: Calls with `batch` pictures.
        batch: Pictures of a batched call.
    """

    runtime: str
    single: Timing
    batched: Timing
    batch: int

    @property
    def pictures_per_second(self) -> float:
        """Throughput of the batched calls, by their median."""
        return self.batch / self.batched.median


class Entry(NamedTuple):
    """All that is known of one model.

    Attributes:
        label: Its name in the table, unlike all others.
        config: Its YAML file.
        checkpoint: Where its weights came from, None for random ones.
        info: Parameters and work.
        speeds: One for each runtime, PyTorch first.
        metrics: COCO's 12 numbers in PyTorch, in [0, 1] by name (-1: nothing to find); None if not evaluated.
    """

    label: str
    config: str
    checkpoint: str | None
    info: ModelInfo
    speeds: tuple[Speed, ...]
    metrics: dict[str, float] | None


@dataclass(frozen=True)
class Comparison:
    """Models measured in one run.

    Attributes:
        machine: What they ran on.
        entries: One for each model.
    """

    machine: Machine
    entries: tuple[Entry, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes; times in milliseconds."""
        return {"machine": self.machine._asdict(), "models": [_entry_dict(one) for one in self.entries]}

    def table(self) -> str:
        """The machine, then a row for each model and runtime, as aligned text."""
        first, *others = self.entries
        batch = first.speeds[0].batch
        head = ["model", "height x width", "M params train", "deploy", "GFLOPs", "no attention", "runtime"]
        head += ["ms, batch 1", "quartiles", f"pictures/s, batch {batch}"]
        scored = any(one.metrics is not None for one in self.entries)
        rows = [head + ["AP", "AP50"] * scored]
        rows += [_row(one, speed, scored) for one in (first, *others) for speed in one.speeds]
        rounds = first.speeds[0].single.num_calls
        about = (
            f"Deploy form with its postprocessor, float32; median of {rounds} rounds over all models in turn."
            " GFLOPs with, and without, attention products." + " AP by PyTorch." * scored
        )
        return "\n".join([self.machine.line(), about, "", *table(rows, LEFT_ALIGNED)])


LEFT_ALIGNED = (0, 6)  # model and runtime


def _row(entry: Entry, speed: Speed, scored: bool) -> list[str]:
    info, single = entry.info, speed.single
    cells = [
        entry.label,
        f"{info.size_hw[0]}x{info.size_hw[1]}",
        f"{sum(info.train.values()) / 1e6:.2f}",
        f"{sum(info.deploy.values()) / 1e6:.2f}",
        f"{info.flops.total / 1e9:.1f}",
        f"{(info.flops.total - info.flops.attention) / 1e9:.1f}",
        speed.runtime,
        f"{1e3 * single.median:.1f}",
        f"{1e3 * single.lower:.1f}-{1e3 * single.upper:.1f}",
        f"{speed.pictures_per_second:.1f}",
    ]
    if not scored:
        return cells
    # the AP is PyTorch's, which stands first: no other runtime was evaluated
    evaluated = speed is entry.speeds[0]
    return cells + [_percent(entry.metrics, name) if evaluated else "" for name in ("AP", "AP50")]


def _percent(metrics: dict[str, float] | None, name: str) -> str:
    """A number in [0, 1] as percent, a dash where there was nothing to measure."""
    value = -1.0 if metrics is None else metrics[name]
    return "-" if value < 0 else f"{100 * value:.1f}"


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "label": entry.label,
        "config": entry.config,
        "checkpoint": entry.checkpoint,
        **entry.info.to_dict(),
        "speeds": [
            {
                "runtime": speed.runtime,
                "batch_1_ms": speed.single.milliseconds(),
                f"batch_{speed.batch}_ms": speed.batched.milliseconds(),
                f"batch_{speed.batch}_pictures_per_second": speed.pictures_per_second,
            }
            for speed in entry.speeds
        ],
        "metrics": entry.metrics,
    }
