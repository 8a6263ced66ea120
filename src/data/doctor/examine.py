"""The whole examination: each set by itself, then the sets against each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...structures import ClassNames
from ..formats.coco import without_group
from ..formats.source import Source
from .checked import check_document
from .document import Entry, check_kind, read_document
from .files import check_files
from .findings import Finding, Findings
from .pictures import Job, check_pictures
from .report import Examined, Report
from .splits import Split, check_splits

NO_CLASSES = ClassNames((), ())
ORDER = ("error", "repaired", "warning")
UNLABELLED = {"train": "no-training-boxes", "val": "no-validation-boxes"}


class Part(NamedTuple):
    """A set to be examined.

    Attributes:
        name: `train`, `val` or another; the others are compared with `train`.
        img_folder: Folder that its file names are relative to.
        document: COCO-shaped; None where it could not be read.
        places: Where each annotation was written, if not in a COCO JSON.
        findings: What was found in reading it; what is found later is added.
        drop_empty_boxes: Whether boxes without an extent are left out instead of being an error.
        follows_exif: Whether its boxes were put right for pictures that EXIF turns.
    """

    name: str
    img_folder: Path
    document: Entry | None
    places: Sequence[str]
    findings: Findings
    drop_empty_boxes: bool = False
    follows_exif: bool = False


def part_of_json(name: str, path: Path, img_folder: Path, *, drop_empty_boxes: bool = False) -> Part:
    """A set in a COCO JSON."""
    findings = Findings(str(path))
    return Part(name, img_folder, read_document(path, findings), (), findings, drop_empty_boxes)


def part_of_source(name: str, source: Source, *, drop_empty_boxes: bool = False) -> Part:
    """A set that a reader of a format has read; a COCO JSON is read again, for what only its text shows."""
    if source.format in ("coco", "roboflow"):
        part = part_of_json(name, source.path, source.img_folder, drop_empty_boxes=drop_empty_boxes)
        if source.format == "coco" or part.document is None:
            return part
        return part._replace(document=without_group(part.document))
    findings = Findings(f"{source.path} ({name})")
    for fault in source.faults:
        findings.add(fault.kind, [fault])
    return Part(
        name,
        source.img_folder,
        check_kind(source.document, findings),
        source.places,
        findings,
        drop_empty_boxes,
        follows_exif=source.format == "yolo",
    )


def examine(parts: Sequence[Part], *, decode: bool, findings: Findings | None = None) -> Report:
    """Look at all sets; nothing on disk is changed.

    Args:
        parts: The sets.
        decode: Whether every picture is decoded and compared with the other sets', or only
            its header and its end read.
        findings: What was found before there were sets.
    """
    examined: list[Examined] = []
    splits: list[Split] = []
    found: list[Finding] = list(findings.all()) if findings else []
    for part in parts:
        summary, split = _examine_one(part, decode=decode)
        examined.append(summary)
        splits.append(split)
        found += part.findings.all()
    for train in [split for split in splits if split.name == "train"]:
        for other in [split for split in splits if split is not train]:
            both = Findings(f"{train.name}, {other.name}")
            check_splits(train, other, both)
            found += both.all()
    return Report(tuple(examined), tuple(sorted(found, key=lambda f: ORDER.index(f.severity))))


def _examine_one(part: Part, *, decode: bool) -> tuple[Examined, Split]:
    if part.document is None:
        return Examined(part.name, part.findings.where, 0, 0, 0), Split(part.name, NO_CLASSES, (), ())
    checked = check_document(
        part.document, part.findings, places=part.places, drop_empty_boxes=part.drop_empty_boxes
    )
    listed = checked.listed
    paths = check_files(part.img_folder, listed.names, part.findings)
    jobs = [
        Job(name, path, size_hw, part.follows_exif)
        for name, path, size_hw in zip(listed.names, paths, listed.sizes_hw, strict=True)
        if path is not None
    ]
    seen = check_pictures(jobs, part.findings, decode=decode)
    num_boxes = len(checked.objects.category_ids)
    if not num_boxes and part.name in UNLABELLED and not part.findings.has_error:
        part.findings.add(UNLABELLED[part.name], [f"{len(listed.ids)} pictures, no box"])
    summary = Examined(part.name, part.findings.where, len(listed.ids), num_boxes, len(checked.classes.ids))
    return summary, Split(
        part.name,
        checked.classes,
        [job.name for job in jobs],
        [job.path for job in jobs],
        [look.fingerprint for look in seen] if decode else (),
    )
