"""Encoders: a backbone's pyramid in, a pyramid of one width out."""

from .hybrid_encoder import HybridEncoder

__all__ = ["HybridEncoder"]
