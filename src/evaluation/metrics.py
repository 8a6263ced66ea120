"""What an evaluation says: COCO's 12 numbers and a row for each class."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
"""The 12 numbers in COCO's order."""


class ClassMetrics(NamedTuple):
    """One class's part; -1 where it has no object.

    Attributes:
        name: The class's name.
        id: Its id in the annotation file.
        AP: Mean over the IoU thresholds 0.50 to 0.95.
        AP50: At IoU threshold 0.50.
        AR_100: Mean recall over the IoU thresholds with at most 100 detections a picture.
        num_objects: Objects in the ground truth, crowd regions left out.
    """

    name: str
    id: int
    AP: float
    AP50: float
    AR_100: float
    num_objects: int


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's 12 numbers in [0, 1], -1 where there is no object to find, and a row for each class.

    Small objects have less than 32^2 pixels, large ones more than 96^2; AR_k takes at most k detections a
    picture and class, everything else at most 100.
    """

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR_1: float
    AR_10: float
    AR_100: float
    AR_small: float
    AR_medium: float
    AR_large: float
    classes: tuple[ClassMetrics, ...]

    def numbers(self) -> dict[str, float]:
        """The 12 numbers by name, in COCO's order."""
        return {name: getattr(self, name) for name in NAMES}

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dump` takes: the 12 numbers, and `classes` as a list of dicts."""
        return {**self.numbers(), "classes": [row._asdict() for row in self.classes]}

    def table(self) -> str:
        """The 12 numbers and the classes as aligned text, in percent."""
        values = [_percent(value) for value in self.numbers().values()]
        summary = "\n".join(
            "  ".join(f"{NAMES[i]:<9} {values[i]:>5}" for i in range(row, len(NAMES), 3)) for row in range(3)
        )
        width = max([len("class"), *(len(row.name) for row in self.classes)])
        head = f"{'class':<{width}}  {'id':>6}  {'objects':>7}  {'AP':>5}  {'AP50':>5}  {'AR_100':>6}"
        lines = [
            f"{row.name:<{width}}  {row.id:>6}  {row.num_objects:>7}  {_percent(row.AP):>5}  "
            f"{_percent(row.AP50):>5}  {_percent(row.AR_100):>6}"
            for row in self.classes
        ]
        return "\n".join([summary, "", head, "-" * len(head), *lines])


def _percent(value: float) -> str:
    """A number in [0, 1] as percent, a dash where there was nothing to measure."""
    return "-" if value < 0 else f"{100 * value:.1f}"


assert tuple(field.name for field in fields(CocoMetrics))[:12] == NAMES, "one order for the 12 numbers"
