"""What a client may ask of the service at most."""

import math
from typing import NamedTuple

from ..data.decode import MAX_PIXELS

LARGEST_PICTURES = 4  # as many of the largest size may a request have, or more that are smaller
MAX_TEXT = 200  # characters of a client's that an answer repeats


class Limits(NamedTuple):
    """Bounds of one request, and of all of them together.

    Attributes:
        max_upload_bytes: Of a body.
        max_pixels: Of a picture, as its header states them; all pictures of a request may have four times
            as many.
        max_pictures: Of a request.
        max_waiting: Pictures that are decoded, waiting or looked at, all at once; bodies that are coming
            may have the bytes of as many of the largest.
        timeout_s: Seconds for a body to come, and the same again for its answer.
    """

    max_upload_bytes: int = 20_000_000
    max_pixels: int = 25_000_000
    max_pictures: int = 16
    max_waiting: int = 64
    timeout_s: float = 30.0

    def checked(self) -> "Limits":
        """These limits.

        Raises:
            ValueError: One is out of range.
        """
        for name, value in self._asdict().items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} {value} was asked for, allowed is a finite number above 0")
        if self.max_pixels > MAX_PIXELS:
            raise ValueError(
                f"max_pixels {self.max_pixels:,} was asked for, allowed are {MAX_PIXELS:,} at most: no "
                "larger picture is decoded"
            )
        if self.max_pictures > self.max_waiting:
            raise ValueError(
                f"max_pictures {self.max_pictures} was asked for, allowed are max_waiting's "
                f"{self.max_waiting} at most"
            )
        return self


def bytes_of(megabytes: float) -> int:
    """The command line's size in bytes.

    Raises:
        ValueError: It is no size.
    """
    if not 0 < megabytes < math.inf:
        raise ValueError(f"--max-upload-mb {megabytes} was asked for, allowed is a finite number above 0")
    return int(megabytes * 1e6)
