"""Backbones: a picture in, a pyramid of maps out; their pretrained weights are loaded by a separate act."""

from .dino_adapter import DinoAdapter
from .dinov3_backbone import DINOv3Backbone
from .hgnetv2 import HGNetv2
from .pretrained import load_pretrained

__all__ = ["DINOv3Backbone", "DinoAdapter", "HGNetv2", "load_pretrained"]
