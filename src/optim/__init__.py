"""What turns gradients into better weights: parameter groups, learning rates, the weights' average."""

from .ema import ModelEMA, fitting_decay
from .groups import Rule, groups_table, parameter_groups
from .schedules import build_schedule, set_rates

__all__ = [
    "ModelEMA",
    "Rule",
    "build_schedule",
    "fitting_decay",
    "groups_table",
    "parameter_groups",
    "set_rates",
]
