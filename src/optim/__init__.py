"""What turns gradients into better weights: parameter groups, learning rates, the weights' average."""

from .ema import ModelEMA
from .groups import Rule, groups_table, parameter_groups
from .schedules import build_schedule

__all__ = ["ModelEMA", "Rule", "build_schedule", "groups_table", "parameter_groups"]
