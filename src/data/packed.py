"""The pictures and objects of an annotation file in a few tensors that processes share.

Legend: M pictures, N objects to train on, S bytes of all file names.
"""

from typing import NamedTuple

from torch import Tensor

from ..structures import ClassNames, GroundTruth


class PackedAnnotations(NamedTuple):
    """The pictures and training objects of one annotation file.

    Lists of dicts cost every forked worker a private copy (reference counts are written into them), tensors
    cost it nothing. Crowds are not training objects; the evaluation finds them in `stated`.

    Attributes:
        image_ids: [M] int64.
        sizes_hw: [M, 2] int64.
        name_bytes: [S] uint8, the file names in UTF-8, end to end.
        name_ends: [M + 1] int64, picture i's name is the bytes from `name_ends[i]` to `name_ends[i + 1]`.
        boxes_xyxy_px: [N, 4] float32, inside their picture, wider and higher than 0.
        labels: [N] int64, contiguous from 0.
        ends: [M + 1] int64, picture i has the objects from `ends[i]` to `ends[i + 1]`.
        classes: The classes, by label.
        dropped: Which boxes were left out and why, in words; empty if none were.
        stated: All objects as COCO's measure wants them; None where nothing is to be scored.
    """

    image_ids: Tensor
    sizes_hw: Tensor
    name_bytes: Tensor
    name_ends: Tensor
    boxes_xyxy_px: Tensor
    labels: Tensor
    ends: Tensor
    classes: ClassNames
    dropped: str = ""
    stated: GroundTruth | None = None

    def file_name(self, index: int) -> str:
        """The file name of one picture, as the JSON has it."""
        start, end = self.name_ends[index : index + 2].tolist()
        return self.name_bytes[start:end].numpy().tobytes().decode("utf-8", "surrogatepass")

    def file_names(self) -> list[str]:
        """All file names, in a hundredth of the time of asking for each."""
        text, ends = self.name_bytes.numpy().tobytes(), self.name_ends.tolist()
        return [
            text[start:end].decode("utf-8", "surrogatepass")
            for start, end in zip(ends, ends[1:], strict=False)
        ]

    def objects(self, index: int) -> tuple[Tensor, Tensor]:
        """Copies of one picture's boxes [n, 4] and labels [n]."""
        start, end = self.ends[index : index + 2].tolist()
        return self.boxes_xyxy_px[start:end].clone(), self.labels[start:end].clone()
