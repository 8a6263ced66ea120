"""What the model learns from: matching of queries and objects, and the losses."""

from .criterion import DFINECriterion
from .matcher import HungarianMatcher, Matches

__all__ = ["DFINECriterion", "HungarianMatcher", "Matches"]
