"""Decoders: a pyramid in, queries with class logits and boxes out."""

from .dfine_transformer import DFINETransformer

__all__ = ["DFINETransformer"]
