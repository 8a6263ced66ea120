"""From what a person names to the sets that are examined."""

from pathlib import Path

from ..formats import recognise
from .examine import Part, examine, part_of_json, part_of_source
from .findings import Findings
from .report import Report

NEEDED = ("train", "val")


def diagnose(path: Path, img_folder: Path | None = None, *, decode: bool = True) -> Report:
    """Examine a dataset's folder, its `data.yaml`, or one COCO JSON; nothing on disk is changed.

    Args:
        path: What is examined.
        img_folder: Folder of a JSON's pictures; None looks for it.
        decode: Whether every picture is decoded, or only its header and its end read.

    Raises:
        ValueError: There is nothing at `path`, or a picture folder is named for what is no JSON.
    """
    is_json = path.is_file() and path.suffix.lower() == ".json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a dataset's folder, its data.yaml or its COCO JSON")
    if img_folder is not None and not is_json:
        raise ValueError(f"--img-folder belongs to a COCO JSON, which {path} is not; leave it out")
    if is_json and img_folder is not None:
        return examine([part_of_json("all", path, img_folder)], decode=decode)
    findings = Findings(str(path))
    parts: list[Part] = []
    try:
        layout = recognise(path)
        for split in sorted(layout.readers, key=("train", "val", "test", "all").index):
            parts.append(part_of_source(split, layout.read(split)))
        if not is_json:
            findings.add("split-missing", [split for split in NEEDED if split not in layout.readers])
    except ValueError as error:
        findings.add("dataset-unreadable", [str(error).splitlines()[0].rstrip(":")])
    return examine(parts, decode=decode, findings=findings)
