"""The same pictures and boxes written as COCO, Roboflow, YOLO and Pascal VOC, each as its tools write it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image

Document = dict[str, Any]
Splits = Mapping[str, Document]
FOLDERS = {"train": "train", "val": "valid"}


def objects_of(document: Document, image: Document) -> list[Document]:
    return [a for a in document["annotations"] if a["image_id"] == image["id"]]


def write_coco(folder: Path, splits: Splits, pictures: Path) -> Path:
    for split, document in splits.items():
        copy(document, pictures, folder / split)
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


def write_roboflow(folder: Path, splits: Splits, pictures: Path) -> Path:
    for split, document in splits.items():
        copy(document, pictures, folder / FOLDERS[split])
        group = {"id": 0, "name": "cells", "supercategory": "none"}
        categories = [{**c, "supercategory": "cells"} for c in document["categories"]]
        changed = {**document, "categories": [group, *categories]}
        (folder / FOLDERS[split] / "_annotations.coco.json").write_text(json.dumps(changed))
    return folder


def write_yolo(folder: Path, splits: Splits, pictures: Path, digits: int = 17) -> Path:
    for split, document in splits.items():
        copy(document, pictures, folder / FOLDERS[split] / "images")
        number = {c["id"]: k for k, c in enumerate(document["categories"])}
        for image in document["images"]:
            lines = []
            for a in objects_of(document, image):
                (left, top, w, h), (width, height) = a["bbox"], (image["width"], image["height"])
                shares = ((left + w / 2) / width, (top + h / 2) / height, w / width, h / height)
                lines.append(f"{number[a['category_id']]} " + " ".join(f"{v:.{digits}g}" for v in shares))
            label = folder / FOLDERS[split] / "labels" / Path(image["file_name"]).with_suffix(".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            if lines:  # a picture without objects has no file
                label.write_text("\n".join(lines) + "\n")
        names = [c["name"] for c in document["categories"]]
    # Roboflow writes these paths as if the file lay one folder deeper
    content = {"train": "../train/images", "val": "../valid/images", "nc": len(names), "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder


def voc_xml(image: Document, objects: list[tuple[str, list[float]]], database: str = "Unknown") -> str:
    items = "".join(
        f"  <object>\n    <name>{escape(name)}</name>\n    <difficult>0</difficult>\n    <bndbox>"
        f"<xmin>{left:g}</xmin><ymin>{top:g}</ymin><xmax>{left + w:g}</xmax><ymax>{top + h:g}</ymax>"
        "</bndbox>\n  </object>\n"
        for name, (left, top, w, h) in objects
    )
    return (
        f"<annotation>\n  <filename>{escape(image['file_name'])}</filename>\n"
        f"  <source><database>{database}</database></source>\n"
        f"  <size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>\n"
        f"{items}</annotation>\n"
    )


def write_voc(folder: Path, splits: Splits, pictures: Path) -> Path:
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for split, document in splits.items():
        copy(document, pictures, folder / "JPEGImages")
        name_of = {c["id"]: c["name"] for c in document["categories"]}
        for image in document["images"]:
            objects = [(name_of[a["category_id"]], a["bbox"]) for a in objects_of(document, image)]
            xml = folder / "Annotations" / Path(image["file_name"]).with_suffix(".xml").name
            xml.write_text(voc_xml(image, objects))
        stems = [Path(image["file_name"]).stem for image in document["images"]]
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
        (folder / "labels.txt").write_text("\n".join(name_of.values()) + "\n")  # VOC itself has no order
    return folder


def copy(document: Document, pictures: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in document["images"]:
        shutil.copy(pictures / image["file_name"], folder / image["file_name"])


WRITERS: dict[str, Callable[[Path, Splits, Path], Path]] = {
    "coco": write_coco,
    "roboflow": write_roboflow,
    "yolo": write_yolo,
    "voc": write_voc,
}


def read_splits(folder: Path) -> Splits:
    """The documents of shared data: `annotations/instances_{train,val}.json`."""
    return {
        split: json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
        for split in ("train", "val")
    }


def make_splits(pictures: Path) -> Splits:
    """Eight made pictures of several sizes with boxes at whole pixels; names with a space and capitals."""
    generator = np.random.default_rng(5)
    categories = [{"id": 3, "name": "red cell"}, {"id": 7, "name": "White"}, {"id": 20, "name": "no"}]
    pictures.mkdir()
    splits: dict[str, Document] = {}
    for split, count in (("train", 6), ("val", 2)):
        images: list[Document] = []
        annotations: list[Document] = []
        # in the order that a folder lists them
        for k, name in enumerate(
            sorted(f"{split} {k}.JPG" if k % 2 else f"{split}_{k}.png" for k in range(count))
        ):
            width, height = 61 + 7 * k, 97 - 5 * k
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / name)
            images.append({"id": k + 1, "file_name": name, "width": width, "height": height})
            for n in range((k + 2) % 4):  # one of four has no objects
                left, top = generator.integers(0, 30, 2).tolist()
                w, h = generator.integers(3, 31, 2).tolist()
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": k + 1,
                        "category_id": categories[(k + n) % 3]["id"],
                        "bbox": [left, top, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
        splits[split] = {"images": images, "annotations": annotations, "categories": categories}
    return splits


TINY = """\
__include__: ['{demo}']
eval_spatial_size: [64, 64]
epochs: 1
print_freq: 1
seed: 3
device: cpu
stages: [{{start: 0, strong_augmentation: True}}]
DINOv3Backbone:
  {{embed_dim: 32, depth: 3, num_heads: 2, out_channels: [32, 32, 32], interaction_indexes: [0, 1, 2]}}
HybridEncoder: {{hidden_dim: 32, nhead: 2, dim_feedforward: 32}}
DFINETransformer:
  {{hidden_dim: 32, nhead: 2, dim_feedforward: 32, num_layers: 2, num_queries: 12, num_denoising: 6}}
DFINEPostProcessor: {{num_top_queries: 12}}
lr_scheduler: {{flat_epochs: 0}}
train_dataloader: {{total_batch_size: {batch}}}
"""


def write_config(folder: Path, repo_root: Path, batch: int) -> Path:
    """The demo's experiment with a model that trains within seconds."""
    path = folder / "tiny.yml"
    demo = repo_root / "configs" / "dfine" / "dfine_dinov3_demo.yml"
    path.write_text(TINY.format(demo=demo, batch=batch))
    return path
