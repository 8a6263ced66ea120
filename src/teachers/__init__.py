"""Teachers: large frozen networks whose features others learn from, alone or by way of a folder."""

from .dinov3_teacher import DinoV3Teacher
from .feature_store import FeatureKind, FeatureStore
from .feature_writer import FeatureWriter
from .loading import build_teacher, load_teacher, load_weights, read_knobs

__all__ = [
    "DinoV3Teacher",
    "FeatureKind",
    "FeatureStore",
    "FeatureWriter",
    "build_teacher",
    "load_teacher",
    "load_weights",
    "read_knobs",
]
