"""Evaluation: COCO's measure on any number of processes, its report, and plots of a run."""

from .coco import CocoEvaluator
from .gallery import Pictures
from .history import plot_history, write_csv
from .metrics import ClassMetrics, CocoMetrics
from .report import write_metrics, write_report
from .scored import Scored
from .scoring import Backend

__all__ = [
    "Backend",
    "ClassMetrics",
    "CocoEvaluator",
    "CocoMetrics",
    "Pictures",
    "Scored",
    "plot_history",
    "write_csv",
    "write_metrics",
    "write_report",
]
