"""Evaluation: COCO's measure on any number of processes, its report, and plots of a run."""

from .coco import CocoEvaluator
from .metrics import ClassMetrics, CocoMetrics
from .report import plot_history, write_metrics
from .scoring import Backend

__all__ = ["Backend", "ClassMetrics", "CocoEvaluator", "CocoMetrics", "plot_history", "write_metrics"]
