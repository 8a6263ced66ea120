"""Datasets as people have them: COCO JSON, Roboflow's folders, YOLO and Pascal VOC, read in place."""

from .coco import HALVES, img_folder_of
from .recognise import recognise
from .source import FAULTS, HARMLESS, Document, Fault, Format, Layout, Source

__all__ = [
    "FAULTS",
    "HALVES",
    "HARMLESS",
    "Document",
    "Fault",
    "Format",
    "Layout",
    "Source",
    "img_folder_of",
    "recognise",
]
