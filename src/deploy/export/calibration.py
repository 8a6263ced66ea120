"""Pictures that show an exported detector what values its activations take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..metadata import INPUTS
from ..predictor import prepare
from ..runtimes import OnnxRuntime
from ..scores import origin_of, read_leniently
from ..sources import find_pictures, read


def calibration_pictures(data: Sequence[Path], folder: Path | None, count: int) -> list[Path]:
    """At most `count` pictures, evenly spread over all that there are.

    Args:
        data: Where no folder is named: a dataset, of which the pictures to train on are taken, or a folder of
            pictures and its COCO JSON.
        folder: Pictures of any kind, without annotations.
        count: How many.

    Raises:
        ValueError: `count` is out of range, nothing or too much is named, or there are no pictures.
    """
    if count < 1:
        raise ValueError(f"{count} pictures were asked for, allowed is 1 or more")
    if folder is not None:
        found = find_pictures(folder)
    elif data:
        origin = origin_of(data, "train")
        names = read_leniently(origin, "train").annotations.file_names()
        found = [origin.img_folder / name for name in names]
    else:
        raise ValueError(
            "pictures like those that the detector will see are needed; name a folder of them with "
            "--pictures, or with --data one dataset, or IMAGES ANNOTATIONS"
        )
    count = min(count, len(found))
    return [found[index * len(found) // count] for index in range(count)]


class Calibration:
    """Pictures, prepared as evaluation prepares them, in the way that ONNX Runtime asks for them.

    Args:
        pictures: Their files; each is a call of its own, many times over where a call takes more.
        runtime: The detector that they are prepared for.
    """

    def __init__(self, pictures: Sequence[Path], runtime: OnnxRuntime) -> None:
        self._pictures = pictures
        self._runtime = runtime
        self.set_range(0, len(pictures))

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self._pictures)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give the pictures from one index on, up to the one before another."""
        self._rest = read(list(self._pictures[start_index:end_index]))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The inputs of the graph for the next picture, None after the last."""
        frame = next(self._rest, None)
        if frame is None:
            return None
        count, runtime = self._runtime.batch or 1, self._runtime
        images, sizes_hw = prepare([frame.image] * count, runtime.input_hw, keep_ratio=runtime.keep_ratio)
        return dict(zip(INPUTS, (images.numpy(), sizes_hw.flip(-1).numpy()), strict=True))
