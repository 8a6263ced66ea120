"""The whole examination: each set by itself, then the sets against each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...structures import ClassNames
from ..formats.coco import without_group
from ..formats.source import Source
from .checked import Checked, check_document
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
        checked: What it says, checked; None where it could not be read.
        findings: What was found in reading and checking it; what is found later is added.
        follows_exif: Whether its boxes were put right for pictures that EXIF turns.
    """

    name: str
    img_folder: Path
    checked: Checked | None
    findings: Findings
    follows_exif: bool = False


def part_of_json(
    name: str, path: Path, img_folder: Path, *, drop_empty_boxes: bool = False, roboflow: bool = False
) -> Part:
    """A set in a COCO JSON; Roboflow's has a category that is none."""
    findings = Findings(str(path))
    document = read_document(path, findings)
    if document is not None and roboflow:
        document = without_group(document)
    return Part(name, img_folder, _checked(document, findings, (), drop_empty_boxes), findings)


def part_of_source(name: str, source: Source, *, drop_empty_boxes: bool = False) -> Part:
    """A set that a reader of a format has read; a COCO JSON is read again, for what only its text shows."""
    if source.format in ("coco", "roboflow"):
        roboflow = source.format == "roboflow"
        return part_of_json(
            name, source.path, source.img_folder, drop_empty_boxes=drop_empty_boxes, roboflow=roboflow
        )
    findings = Findings(f"{source.path} ({name})")
    for fault in source.faults:
        findings.add(fault.kind, [fault])
    document = check_kind(source.document, findings)
    checked = _checked(document, findings, source.places, drop_empty_boxes)
    return Part(name, source.img_folder, checked, findings, follows_exif=source.format == "yolo")


def _checked(
    document: Entry | None, findings: Findings, places: Sequence[str], drop_empty_boxes: bool
) -> Checked | None:
    if document is None:
        return None
    return check_document(document, findings, places=places, drop_empty_boxes=drop_empty_boxes)


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
    checked = part.checked
    if checked is None:
        return Examined(part.name, part.findings.where, 0, 0, 0), Split(part.name, NO_CLASSES, (), ())
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
