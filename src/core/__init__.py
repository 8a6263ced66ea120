"""Configuration: YAML files in, one checked `Experiment` out."""

from .experiment import Experiment
from .settings import (
    AmpSettings,
    DatasetSettings,
    EmaSettings,
    EvaluatorSettings,
    GroupRule,
    LoaderSettings,
    MultiScaleSettings,
    OpSettings,
    OptimizerSettings,
    PolicySettings,
    SchedulerSettings,
    StageSettings,
    TransformsSettings,
    WarmupSettings,
)

__all__ = [
    "AmpSettings",
    "DatasetSettings",
    "EmaSettings",
    "EvaluatorSettings",
    "Experiment",
    "GroupRule",
    "LoaderSettings",
    "MultiScaleSettings",
    "OpSettings",
    "OptimizerSettings",
    "PolicySettings",
    "SchedulerSettings",
    "StageSettings",
    "TransformsSettings",
    "WarmupSettings",
]
