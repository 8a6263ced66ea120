"""What a run writes of itself: metrics.jsonl and .csv, TensorBoard, curves, eval.json and the report."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from PIL import Image

from ..distributed import barrier, is_main
from ..door import Interrupted
from ..evaluation import CocoMetrics, Pictures, Scored, plot_history, write_csv, write_metrics, write_report
from ..files import make_folder
from .evaluate import Evaluation
from .logs import MetricsLog, TensorboardLog, writing_in

logger = logging.getLogger(__name__)

REPORT_EVERY = 600  # seconds: it costs a few, and where epochs are as short each may bring a new best


class Recorder:
    """The files that tell a run's story, all written by rank 0 alone; every rank makes the same calls.

    Args:
        output_dir: Folder of the run.
        summary_dir: Folder of TensorBoard's files; `output_dir/summary` where there is none.
        resume_step: Optimizer steps already done; later lines of an earlier try are dropped.
    """

    def __init__(self, output_dir: Path, summary_dir: str | None, *, resume_step: int) -> None:
        self.output_dir = output_dir
        self.log = MetricsLog(output_dir, resume_step=resume_step)
        self.board = TensorboardLog(summary_dir or output_dir / "summary", resume_step=resume_step)
        self._best: tuple[Scored, Pictures, str] | None = None
        self._reported = time.monotonic()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close()
        self.board.close()
        if error is None or isinstance(error, Interrupted):  # all ranks end so, or none
            self._report()
            barrier()  # none leaves while the main one draws

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
                write_csv(self.output_dir / "metrics.jsonl", self.output_dir / "metrics.csv")

    def best(self, epoch: int, evaluation: Evaluation) -> None:
        """Keep what the best evaluation so far scored, for the report at the end; a long run draws it now."""
        if evaluation.evaluator.scored is not None:  # the main rank
            self._best = (evaluation.evaluator.scored, evaluation.pictures, f"best.pth, of epoch {epoch}")
            if time.monotonic() - self._reported > REPORT_EVERY:
                self._report()
        barrier()  # where ranks may wait for long

    def _report(self) -> None:
        if self._best is None:
            return
        scored, pictures, about = self._best
        with writing_in(self.output_dir):
            write_report(scored, pictures, self.output_dir, about=about)
        self._reported = time.monotonic()


def record_test(
    output_dir: Path, evaluation: Evaluation, metrics: CocoMetrics, checkpoint: Path, *, step: int
) -> None:
    """Write what an evaluation by itself found: a line of metrics.jsonl, eval.json and the report.

    Args:
        output_dir: Folder of the files.
        evaluation: What was just run, on all ranks.
        metrics: Its numbers.
        checkpoint: What was evaluated.
        step: Optimizer steps behind it, 0 where it does not say.
    """
    scored = evaluation.evaluator.scored
    if scored is not None:  # the main rank
        line = {"kind": "test", "checkpoint": str(checkpoint), "step": step, **metrics.numbers()}
        with writing_in(make_folder(output_dir)), MetricsLog(output_dir, resume_step=None) as log:
            log.write(line)
            write_csv(log.path, output_dir / "metrics.csv")
            write_metrics(metrics, output_dir / "eval.json")
            page = write_report(scored, evaluation.pictures, output_dir, about=str(checkpoint))
        logger.info("report: %s", page)
    barrier()  # none leaves while the main one draws
