"""What a run writes of itself: metrics.jsonl, TensorBoard, the curves, the evaluation as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from PIL import Image

from ..distributed import is_main
from ..evaluation import CocoMetrics, plot_history, write_metrics
from .logs import MetricsLog, TensorboardLog, writing_in


class Recorder:
    """The files that tell a run's story, all written by rank 0 alone.

    Args:
        output_dir: Folder of the run.
        summary_dir: Folder of TensorBoard's files; `output_dir/summary` where there is none.
        resume_step: Optimizer steps already done; later lines of an earlier try are dropped.
    """

    def __init__(self, output_dir: Path, summary_dir: str | None, *, resume_step: int) -> None:
        self.output_dir = output_dir
        self.log = MetricsLog(output_dir, resume_step=resume_step)
        self.board = TensorboardLog(summary_dir or output_dir / "summary", resume_step=resume_step)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close()
        self.board.close()

    def training(
        self,
        epoch: int,
        step: int,
        losses: Mapping[str, float],
        rates: Sequence[float],
        notes: Mapping[str, float],
    ) -> None:
        """Losses and what was noted beside them (means since the last call), learning rates after `step`."""
        told = {"loss": sum(losses.values()), "lr": max(rates), **losses, **notes}
        named_rates = {f"lr_{i}": rate for i, rate in enumerate(rates)}
        with writing_in(self.output_dir):
            self.log.write({"kind": "train", "epoch": epoch, "step": step, **told, **named_rates})
            self.board.scalars({"loss": told["loss"], **losses, **notes, **named_rates}, step)

    def evaluation(
        self, epoch: int, step: int, metrics: CocoMetrics, pictures: Sequence[Image.Image]
    ) -> None:
        """COCO's numbers after an epoch, and some pictures with what was found in them."""
        with writing_in(self.output_dir):
            self.log.write({"kind": "eval", "epoch": epoch, "step": step, **metrics.numbers()})
            self.board.scalars(metrics.numbers(), step)
            self.board.images(pictures, step)
            if is_main():
                write_metrics(metrics, self.output_dir / "eval.json")
                plot_history(self.output_dir / "metrics.jsonl", self.output_dir / "curves.png")
