"""A dataset without validation pictures, divided in two: the same on every machine.

Legend: G groups, C classes.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .conversion import checked, seen_from
from .formats import HALVES, Document, recognise

PICTURE = None  # the key that pictures are counted under, beside the classes' ids
Counts = Counter[Any]
MAX_ROUNDS = 20  # every move lessens the sum, so that it ends by itself; this bounds the time
NOTHING = 1e-12  # what rounding alone may seem to gain


class Halves(NamedTuple):
    """The two parts of a dataset.

    Attributes:
        root: The dataset's folder, which the file names of both are relative to.
        train: COCO's document of the larger part.
        val: And of the other.
    """

    root: Path
    train: Document
    val: Document

    def files(self, folder: Path | None = None) -> dict[Path, Document]:
        """Both documents, by where they are written: in a folder, or where `data` finds them."""
        folder = folder or self.root / "annotations"
        return {folder / HALVES["train"]: self.train, folder / HALVES["val"]: self.val}

    def table(self) -> str:
        """Pictures and boxes of each class in both parts."""
        rows = [("", "train", "val", "share of val")]
        names: dict[Any, str] = {PICTURE: "pictures"}
        names |= {category["id"]: str(category["name"]) for category in self.train["categories"]}
        train, val = (_count_all(part) for part in (self.train, self.val))
        for key, name in names.items():
            total = train[key] + val[key]
            share = f"{val[key] / total:.3f}" if total else "-"
            rows.append((name, str(train[key]), str(val[key]), share))
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if k == 0 else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def split(path: Path, *, val: float, seed: int, group_by: str = "none", again: bool = False) -> Halves:
    """Divide a dataset; pictures of one group stay together, and classes are shared out where they can be.

    Args:
        path: The dataset; its test split, if it has one, is left alone.
        val: Share of the pictures and of each class's boxes that is to be held out.
        seed: Chooses among the many ways.
        group_by: `none`, `folder`, or a regular expression whose first group (or whole match) in a file name
            names the group.
        again: Whether a dataset that has a validation split may be divided anew.

    Raises:
        ValueError: It is no dataset, cannot be read, or cannot be divided so.
    """
    if not 0 < val < 1:
        raise ValueError(f"--val {val:g} must lie between 0 and 1: it is the share of pictures to hold out")
    layout = recognise(path)
    if "val" in layout.readers and not again:
        raise ValueError(f"dataset {path} has a validation split already; --force divides it anew")
    sources = [checked(layout.readers[name]()) for name in ("all", "train", "val") if name in layout.readers]
    if not sources:
        raise ValueError(f"dataset {path} has only {', '.join(layout.readers)}; there is nothing to divide")
    whole = _join([seen_from(layout.root, source) for source in sources], path)
    groups = _groups([image["file_name"] for image in whole["images"]], group_by)
    chosen = choose(groups, _counts(whole), val=val, seed=seed)
    about = {"val": val, "seed": seed, "group_by": group_by}
    halves = (_part(whole, chosen, about, held_out=flag) for flag in (False, True))
    return Halves(layout.root, *halves)


def choose(
    groups: Mapping[str, Sequence[int]], counts: Sequence[Counts], *, val: float, seed: int
) -> set[int]:
    """The pictures to hold out: groups in a drawn order change sides while that brings the counts nearer.

    How near is the sum, over the classes and the pictures, of the squared distance from the share that is
    wanted. All sums are rounded once (`math.fsum`), so that every machine decides alike.

    Args:
        groups: G lists of pictures, by name.
        counts: For each picture its boxes of each class, and 1 for `PICTURE`.
        val: Share to hold out.
        seed: Of the order.

    Raises:
        ValueError: There is only one group.
    """
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} group of pictures cannot be divided; choose another --group-by")
    totals = sum(counts, Counter())
    order = sorted(
        groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()
    )
    sizes = {name: sum((counts[k] for k in groups[name]), Counter()) for name in order}
    over = {key: -val * total for key, total in totals.items()}  # what is held out, beyond the aim
    chosen: set[str] = set()
    for _ in range(MAX_ROUNDS):
        moved = False
        for name in order:
            sign = -1 if name in chosen else 1
            gain = math.fsum(
                x * (x + 2 * sign * over[key]) / totals[key] ** 2 for key, x in sizes[name].items()
            )
            if gain < -NOTHING and 0 < len(chosen) + sign < len(groups):
                chosen ^= {name}
                over.update({key: over[key] + sign * x for key, x in sizes[name].items()})
                moved = True
        if not moved:
            break
    return {k for name in chosen or order[:1] for k in groups[name]}


def _groups(names: Sequence[str], group_by: str) -> dict[str, list[int]]:
    """Pictures by the name of their group."""
    found: dict[str, list[int]] = {}
    if group_by in ("none", "folder"):
        for k, name in enumerate(names):
            key = name if group_by == "none" else PurePosixPath(name).parent.as_posix()
            found.setdefault(key, []).append(k)
        return found
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ValueError(
            f"--group-by {group_by!r} is no regular expression ({error}), folder or none"
        ) from error
    strangers = [name for name in names if not pattern.search(name)]
    if strangers:
        raise ValueError(
            f"--group-by {group_by!r} matches {len(names) - len(strangers)} of {len(names)} file names; it "
            f"does not match {strangers[0]}"
        )
    for k, name in enumerate(names):
        match = pattern.search(name)
        assert match is not None, "strangers are refused above"
        found.setdefault((match[1] if pattern.groups else match[0]) or "", []).append(k)
    return found


def _counts(document: Document) -> list[Counts]:
    position = {image["id"]: k for k, image in enumerate(document["images"])}
    counts: list[Counts] = [Counter({PICTURE: 1}) for _ in position]
    for annotation in document["annotations"]:
        counts[position[annotation["image_id"]]][annotation["category_id"]] += 1
    return counts


def _count_all(document: Document) -> Counts:
    return sum(_counts(document), Counter())


def _join(documents: Sequence[Document], path: Path) -> Document:
    """All pictures by their names, and their objects; of several documents the ids are given anew."""
    if len(documents) == 1:
        whole = documents[0]
        return {**whole, "images": sorted(whole["images"], key=lambda image: image["file_name"])}
    kinds = [{(c["id"], c["name"]) for c in document["categories"]} for document in documents]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"the splits of {path} have different categories; make them the same first")
    pairs = [(image, k) for k, document in enumerate(documents) for image in document["images"]]
    pairs.sort(key=lambda pair: pair[0]["file_name"])
    numbers = {(k, image["id"]): number for number, (image, k) in enumerate(pairs, start=1)}
    images = [{**image, "id": number} for number, (image, _) in enumerate(pairs, start=1)]
    objects = [
        (numbers[k, a["image_id"]], a)
        for k, document in enumerate(documents)
        for a in document["annotations"]
    ]
    objects.sort(key=lambda pair: pair[0])
    annotations = [{**a, "id": number, "image_id": of} for number, (of, a) in enumerate(objects, start=1)]
    return {"images": images, "annotations": annotations, "categories": documents[0]["categories"]}


def _part(whole: Document, chosen: set[int], about: Document, *, held_out: bool) -> Document:
    images = [image for k, image in enumerate(whole["images"]) if (k in chosen) == held_out]
    ids = {image["id"] for image in images}
    annotations = [a for a in whole["annotations"] if a["image_id"] in ids]
    info = {"description": "val" if held_out else "train", **about}
    return {
        "info": info,
        "licenses": whole.get("licenses", []),
        "images": images,
        "annotations": annotations,
        "categories": whole["categories"],
    }
