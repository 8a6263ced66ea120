"""Ranges of numbers, written beside a hint: `Annotated[int, Bounds(low=1)]`."""

from typing import Annotated, NamedTuple


class Bounds(NamedTuple):
    """A range that a number of the configuration must lie in.

    Attributes:
        low: Smallest value allowed.
        high: Largest value allowed.
        above: The value must be larger than this.
        below: The value must be smaller than this.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def admits(self, value: float) -> bool:
        """Whether `value` lies in the range."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        return " and ".join(f"{word} {limit:g}" for word, limit in words.items() if limit is not None)


Count = Annotated[int, Bounds(low=1)]
Size = Annotated[int, Bounds(low=32)]
NaturalNumber = Annotated[int, Bounds(low=0)]
PositiveFloat = Annotated[float, Bounds(above=0)]
NonNegativeFloat = Annotated[float, Bounds(low=0)]
Fraction = Annotated[float, Bounds(low=0, high=1)]
ProperFraction = Annotated[float, Bounds(low=0, below=1)]
