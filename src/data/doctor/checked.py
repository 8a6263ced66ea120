"""A COCO document, wholly checked and repaired: what is trained on, and what is found on the way."""

from collections.abc import Sequence
from typing import NamedTuple

from ...structures import ClassNames
from .document import Entry, Listed, check_categories, check_listed, is_int
from .findings import Findings
from .objects import Objects, check_objects


class Checked(NamedTuple):
    """What of a document can be used. Whoever trains on it sees to it that there was no error.

    Attributes:
        classes: In the order of their ids.
        listed: The pictures.
        objects: The annotations, and the boxes to train on.
        document: The document with the repaired annotations, for those who read COCO's format.
    """

    classes: ClassNames
    listed: Listed
    objects: Objects
    document: Entry


def check_document(
    document: Entry, findings: Findings, *, places: Sequence[str] = (), drop_empty_boxes: bool = False
) -> Checked:
    """Check everything that a document says by itself, without a look at its pictures.

    Args:
        document: Of COCO's detection format, with its three lists; it is not changed.
        findings: Where to note what is found.
        places: Where each annotation was written, if not in a COCO JSON.
        drop_empty_boxes: Whether boxes without an extent are left out instead of being an error.
    """
    classes = check_categories(document["categories"], findings)
    listed = check_listed(document["images"], findings)
    ids = frozenset(i["id"] for i in document["images"] if isinstance(i, dict) and is_int(i.get("id")))
    objects = check_objects(
        document["annotations"],
        listed,
        ids,
        classes.ids,
        findings,
        places=places,
        drop_empty_boxes=drop_empty_boxes,
    )
    found = set(objects.category_ids.tolist())
    if len(objects.category_ids):  # else another finding says that nothing is labelled
        findings.add(
            "category-without-boxes",
            [f"{i} {name!r}" for i, name in zip(classes.ids, classes.names, strict=True) if i not in found],
        )
    return Checked(classes, listed, objects, {**document, "annotations": objects.entries})


def strangers(found: ClassNames, expected: ClassNames) -> list[str]:
    """The categories that `expected` does not have under the same id and name."""
    known = dict(zip(expected.ids, expected.names, strict=True))
    return [f"{i} {n!r}" for i, n in zip(found.ids, found.names, strict=True) if known.get(i) != n]
