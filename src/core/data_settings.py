"""The sections of an experiment that describe pictures and batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .bounds import Count, Fraction, NaturalNumber, NonNegativeFloat, PositiveFloat


@dataclass(frozen=True, kw_only=True)
class OpSettings:
    """One transform of a pipeline; in the YAML a mapping of `type` and the transform's knobs.

    Attributes:
        type: The transform's name.
        knobs: Its keyword arguments, checked against its signature.
    """

    type: str
    knobs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Which transforms a stage can switch off.

    Attributes:
        ops: The types of the transforms that are strong augmentation.
    """

    ops: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TransformsSettings:
    """What happens to a picture between its file and the batch.

    Attributes:
        type: `Compose`, the only kind there is.
        ops: The transforms, in order.
        policy: Names the strong ones; without it nothing can be switched off.
    """

    type: Literal["Compose"] = "Compose"
    ops: tuple[OpSettings, ...] = ()
    policy: PolicySettings | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """Pictures and their annotations.

    Attributes:
        type: `CocoDetection`: annotations as COCO JSON. Its category ids may have gaps.
        img_folder: Folder of the pictures, relative to the working directory; null where `data` names them.
        ann_file: The JSON file, relative to the working directory; null where `data` names it.
        transforms: What happens to each picture.
        drop_empty_boxes: Whether boxes of no width or height are left out with a warning; otherwise they stop
            the run.
    """

    type: Literal["CocoDetection"] = "CocoDetection"
    img_folder: str | None = None
    ann_file: str | None = None
    transforms: TransformsSettings = field(default_factory=TransformsSettings)
    drop_empty_boxes: bool = False


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How a dataset becomes batches.

    Attributes:
        type: `DataLoader`, the only kind there is.
        dataset: The pictures.
        total_batch_size: Pictures in a batch, all processes together. `auto`, for training alone: as many of
            32 as the memory holds, and `accumulate_steps` such that a step has 32.
        num_workers: Processes that load pictures, for each training process; 0 loads in the process itself.
        shuffle: Whether each epoch has its own order.
        drop_last: Whether an incomplete last batch is left out.
    """

    type: Literal["DataLoader"] = "DataLoader"
    dataset: DatasetSettings
    total_batch_size: Count | Literal["auto"]
    num_workers: NaturalNumber = 4
    shuffle: bool
    drop_last: bool = False


@dataclass(frozen=True, kw_only=True)
class MixingSettings:
    """How pictures are mixed, where a stage says that they are: `mosaic`, `mixup`, `copyblend`.

    Attributes:
        degrees: Largest angle that a mosaic is turned by, either way.
        translate: Largest shift of a mosaic, either way, in shares of its width and height.
        scale: Smallest and largest factor of a mosaic.
        blend: Smallest and largest share of the second picture, in MixUp and CopyBlend.
        num_pasted: Most objects that CopyBlend brings into a picture.
        cache_mb: Most memory for decoded pictures in each loading process, in MiB; 0 keeps none. It changes
            the speed and nothing else.
    """

    degrees: NonNegativeFloat = 10.0
    translate: tuple[Fraction, Fraction] = (0.1, 0.1)
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.5)
    blend: tuple[Fraction, Fraction] = (0.45, 0.55)
    num_pasted: Count = 3
    cache_mb: NaturalNumber = 160


@dataclass(frozen=True, kw_only=True)
class MultiScaleSettings:
    """Training at changing input sizes, 0.75 to 1.25 times `eval_spatial_size` in steps of 32.

    Attributes:
        base_size_repeat: How often the size itself stands in the list that a size is drawn from.
    """

    base_size_repeat: Count
