"""Configuration: YAML files in, one checked `Experiment` out."""

from .dumping import dump_experiment
from .experiment import Experiment
from .loading import load_experiment
from .problems import ConfigError
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
    "ConfigError",
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
    "dump_experiment",
    "load_experiment",
]
