"""Steps of a YAML's transforms that state how things are, so that nothing else can be asked for."""

from .transforms import Sample


class ConvertPILImage:
    """States the pictures' format after batching.

    Until then they stay uint8, a quarter of the bytes; on the device they become float32 in [0, 1]: so
    nothing else can be asked for here.
    """

    def __init__(self, *, dtype: str = "float32", scale: bool = True) -> None:
        if dtype != "float32" or not scale:
            raise ValueError(
                f"ConvertPILImage: dtype '{dtype}', scale {scale} is not offered: the model takes float32 in "
                "[0, 1] (dtype: float32, scale: True)"
            )

    def __call__(self, sample: Sample) -> Sample:
        """The sample as it is."""
        return sample


class Normalize:
    """States the mean and standard deviation, in units of [0, 1], that the backbone was trained with.

    The model normalises, on the device, by its backbone's own numbers; `Pipeline.normalize` lets them be
    compared.
    """

    def __init__(self, *, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"Normalize: three means and three positive deviations are needed, got {mean}, {std}"
            )
        self.mean = mean
        self.std = std

    def __call__(self, sample: Sample) -> Sample:
        """The sample as it is."""
        return sample


class ConvertBoxes:
    """States the boxes' format after batching: centre, width and height in [0, 1], the only one there is."""

    def __init__(self, *, fmt: str = "cxcywh", normalize: bool = True) -> None:
        if fmt != "cxcywh" or not normalize:
            raise ValueError(
                f"ConvertBoxes: fmt '{fmt}', normalize {normalize} is not offered: the model takes "
                "fmt: cxcywh, normalize: True"
            )

    def __call__(self, sample: Sample) -> Sample:
        """The sample as it is."""
        return sample
