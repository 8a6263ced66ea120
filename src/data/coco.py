"""A dataset of pictures with COCO annotations."""

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..structures import ClassNames, Target
from .annotation_cache import load_annotations
from .annotations import follow_classes
from .decode import PictureError, decode_rgb
from .doctor import Findings, check_files
from .mixing import Chances, Mixing
from .packed import PackedAnnotations
from .pipeline import Pipeline
from .seeds import seed_of, torch_cpu_seeded


class CocoDetection(Dataset[tuple[Tensor, Target]]):
    """Pictures and their objects, transformed.

    What a picture looks like is a pure function of (seed, epoch, index): it depends neither on the worker
    that loads it nor on what was loaded before. Pictures without objects are kept.

    Attributes:
        classes: The classes, by contiguous label.
        img_folder: The folder of the pictures.
        ann_file: The annotation file, or what stands for it in another format.
        transforms: The pipeline.
    """

    def __init__(
        self,
        img_folder: str | Path,
        ann_file: str | Path,
        transforms: Pipeline,
        seed: int = 0,
        classes: ClassNames | None = None,
        mixing: Mixing | None = None,
        annotations: PackedAnnotations | None = None,
        *,
        drop_empty_boxes: bool = False,
    ) -> None:
        """Read the annotations, and see that every picture file is there.

        Args:
            img_folder: Folder that the JSON's file names are relative to.
            ann_file: COCO JSON, or what `annotations` were read from.
            transforms: Applied to every picture.
            seed: Of all random draws of the transforms.
            classes: The training set's classes, which the labels of an evaluation set follow; None takes the
                file's.
            mixing: Mixes pictures as often as `set_epoch` says.
            annotations: What was read of `ann_file` already, if anything was.
            drop_empty_boxes: Leave boxes of no size out instead of refusing the file.

        Raises:
            ValueError: A missing folder, file or picture, or a fault in the JSON.
        """
        self.img_folder = Path(img_folder)
        self.ann_file = Path(ann_file)
        self.transforms = transforms
        self.seed = seed
        self.mixing = mixing
        if annotations is None:
            annotations = load_annotations(self.ann_file, drop_empty_boxes=drop_empty_boxes)
        if classes is not None:
            annotations = follow_classes(annotations, classes, self.ann_file)
        self.annotations = annotations
        self.classes = self.annotations.classes
        self._real_folder = os.path.realpath(self.img_folder)
        findings = Findings(str(self.ann_file))
        check_files(self.img_folder, self.annotations.file_names(), findings)
        findings.refuse()
        # epoch, strong augmentation and chances, in shared memory: persistent workers hold a copy of all else
        self._now = torch.tensor([0.0, 1, *Chances()], dtype=torch.float64)
        self._now.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(
        self,
        epoch: int,
        *,
        strong_augmentation: bool,
        chances: Chances = Chances(),  # noqa: B008 (immutable)
    ) -> None:
        """From now on give pictures as this epoch draws them; reaches workers that already run."""
        self._now.copy_(torch.tensor([epoch, strong_augmentation, *chances], dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def load(self, index: int) -> tuple[Image.Image, Target]:
        """One picture as stored, with its objects.

        Raises:
            ValueError: The file is missing, damaged, of another size than stated, or outside the folder.
        """
        h, w = self.annotations.sizes_hw[index].tolist()
        boxes, labels = self.annotations.objects(index)
        image = decode_rgb(self._path(index), (h, w))
        return image, Target(boxes, labels, int(self.annotations.image_ids[index]), (h, w))

    def picture(self, image_id: int) -> tuple[str, Image.Image]:
        """File name and pixels of a picture as stored, by its id; errors are `load`'s."""
        index = int((self.annotations.image_ids == image_id).nonzero()[0])
        return self.annotations.file_name(index), self.load(index)[0]

    def _path(self, index: int) -> str:
        path = os.path.join(self.img_folder, self.annotations.file_name(index))
        if not os.path.realpath(path).startswith(self._real_folder + os.sep):
            raise PictureError(
                f"picture {path} of {self.ann_file} is a link that leads out of {self.img_folder}; "
                "copy the file into the folder, or set img_folder to where it lies"
            )
        return path

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        number, strong, *chances = self._now.tolist()
        epoch = int(number)
        if self.mixing is not None:
            return self.mixing(self, index, epoch, Chances(*chances), strong=bool(strong))
        image, target = self.load(index)
        with torch_cpu_seeded(seed_of(self.seed, epoch, index)):
            return self.transforms(image, target, strong=bool(strong))
