"""The doctor's visit before the first step of a run: documents and pictures, once for the same data."""

import hashlib
import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ..files import replacing
from . import annotation_cache
from .annotation_cache import cache_path, digest_of_file, is_cached, keep_annotations
from .annotations import pack
from .doctor import Part, Report, examine, part_of_json, part_of_source
from .origin import Origin, ReadSet

logger = logging.getLogger(__name__)

VERSION = 2  # of the checks: raised whenever they would say something else of the same data
DECODED = 2_000  # pictures of all sets together, up to which each is decoded
SMALLEST = 2_000  # pictures of another format than JSON; fewer leave no file behind


def examine_before_training(
    origins: Mapping[str, Origin], *, lenient: Collection[str]
) -> tuple[Report, dict[str, ReadSet]]:
    """What is wrong with the sets of a run, and what was read of them to find it.

    Of up to `DECODED` pictures each is decoded, and those of one set are compared with the other's; of more,
    header and end are read, and only files without the mark of their end are decoded.

    What was found is kept beside the annotation cache, unless it would stop the run; a run on the same
    documents and picture folders takes it from there, and reads none. A picture that is changed in place is
    not noticed.

    Args:
        origins: Where the sets come from, `train` and `val`.
        lenient: Names of the sets that leave boxes without an extent out (`drop_empty_boxes`).

    Raises:
        ValueError: The data would stop the run; every fault is listed.
    """
    memory = _memory_of(origins)
    files = {name: o.ann_file for name, o in origins.items() if memory and _is_json(o)}
    digests = {name: digest_of_file(path) for name, path in files.items()}
    key = _key_of(origins, digests, lenient) if memory else ""
    report = _recall(memory, key) if memory else None
    if report is not None:
        return report, {}
    parts = [_part(name, o, drop_empty_boxes=name in lenient) for name, o in origins.items()]
    count = sum(len(part.checked.listed.ids) for part in parts if part.checked is not None)
    report = examine(parts, decode=count <= DECODED)
    if report.errors:
        first, *others = report.errors
        more = f" (and {len(others)} more, in the table)" if others else ""
        raise ValueError(f"{first.sentence()}{more}\n\n{report.table()}")
    if memory:
        _remember(memory, key, report)
    return report, {part.name: _read(part, origins[part.name], digests.get(part.name)) for part in parts}


def _read(part: Part, origin: Origin, digest: str | None) -> ReadSet:
    """What was read of a set; that of a large JSON is put into its cache, for all processes."""
    assert part.checked is not None, "a document that cannot be read is an error"
    packed = pack(part.checked, part.findings, scored=part.name == "val")
    if digest is not None and origin.source is None and is_cached(origin.ann_file):
        packed = keep_annotations(origin.ann_file, digest, packed)
    return ReadSet(origin.img_folder, origin.ann_file, packed)


def _part(name: str, origin: Origin, *, drop_empty_boxes: bool) -> Part:
    if origin.source is None:
        return part_of_json(name, origin.ann_file, origin.img_folder, drop_empty_boxes=drop_empty_boxes)
    return part_of_source(name, origin.source, drop_empty_boxes=drop_empty_boxes)


def _memory_of(origins: Mapping[str, Origin]) -> Path | None:
    """Where findings are kept; None for small data, and for a user without a home."""
    first = next(iter(origins.values()))
    cache = cache_path(first.ann_file) if any(map(_is_large, origins.values())) else None
    return cache.with_suffix(".examined") if cache else None


def _is_large(origin: Origin) -> bool:
    if _is_json(origin):
        return origin.ann_file.stat().st_size >= annotation_cache.SMALLEST
    return origin.source is not None and len(origin.source.document["images"]) >= SMALLEST


def _is_json(origin: Origin) -> bool:
    return origin.ann_file.is_file() and origin.ann_file.suffix.lower() == ".json"


def _key_of(origins: Mapping[str, Origin], digests: Mapping[str, str], lenient: Collection[str]) -> str:
    """Of all that is looked at: documents, and picture folders by the time when a name in them changed."""
    digest = hashlib.sha256(json.dumps([VERSION, DECODED]).encode())
    for name, origin in origins.items():
        folders = sorted((folder, os.stat(folder).st_mtime_ns) for folder, _, _ in os.walk(origin.img_folder))
        read_as = origin.source and origin.source.format
        about = [name, str(origin.ann_file), read_as, name in lenient, folders]
        digest.update(json.dumps(about).encode())
        if name in digests:
            digest.update(digests[name].encode())
        elif origin.source is not None:
            said = [origin.source.document, origin.source.faults]
            digest.update(json.dumps(said).encode())
    return digest.hexdigest()


def _recall(memory: Path, key: str) -> Report | None:
    """What was found in the same data; None where there is no such file or it is of other data."""
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
        return Report.from_json(kept["report"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return None


def _remember(memory: Path, key: str, report: Report) -> None:
    """Put the findings in place in one step; without them the next run looks again."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memory) as partial, partial.open("w", encoding="utf-8") as file:
            json.dump({"key": key, "report": json.loads(report.as_json())}, file)
    except OSError as error:
        logger.info("what was found in the data is not kept: %s cannot be written (%s)", memory, error)
