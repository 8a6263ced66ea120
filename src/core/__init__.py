"""Configuration: YAML files in, one checked `Experiment` out."""

from .data_settings import (
    DatasetSettings,
    LoaderSettings,
    MixingSettings,
    MultiScaleSettings,
    OpSettings,
    PolicySettings,
    TransformsSettings,
)
from .dumping import dump_experiment, dump_tree
from .experiment import Experiment
from .loading import load_experiment
from .problems import ConfigError
from .settings import (
    AmpSettings,
    EmaSettings,
    EvaluatorSettings,
    GroupRule,
    OptimizerSettings,
    SchedulerSettings,
    StageSettings,
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
    "MixingSettings",
    "MultiScaleSettings",
    "OpSettings",
    "OptimizerSettings",
    "PolicySettings",
    "SchedulerSettings",
    "StageSettings",
    "TransformsSettings",
    "WarmupSettings",
    "dump_experiment",
    "dump_tree",
    "load_experiment",
]
