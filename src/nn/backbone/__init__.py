"""Backbones: a picture in, a pyramid of maps out; their pretrained weights are loaded by a separate act."""

from .dinov3_backbone import DINOv3Backbone
from .pretrained import load_pretrained

__all__ = ["DINOv3Backbone", "load_pretrained"]
