"""A COCO document, checked from its JSON text to its lists of categories and pictures."""

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ...structures import ClassNames
from .findings import Findings, told

Entry = dict[str, Any]
LISTS = ("images", "annotations", "categories")
LARGEST_ID = 2**63 - 1
LARGEST_SIDE = 2**31 - 1  # pixels


class Listed(NamedTuple):
    """The pictures of a document that can be used; several may share an id only where that is an error.

    Attributes:
        ids: Of each picture.
        sizes_hw: (height, width) of each.
        names: File name of each, relative to the picture folder.
    """

    ids: list[int]
    sizes_hw: list[tuple[int, int]]
    names: list[str]


def read_document(path: Path, findings: Findings) -> Entry | None:
    """The JSON object in `path`; None, with a finding, where there is none."""
    repeated: list[str] = []

    def built(pairs: list[tuple[str, Any]]) -> Entry:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            repeated.extend(told(key) for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        return entry

    if not path.is_file():
        findings.add("json-missing", [path])
        return None
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=built)
    except OSError as error:
        findings.add("json-unreadable", [error.strerror or error])
        return None
    except json.JSONDecodeError as error:
        findings.add("json-invalid", [f"{path.name}:{error.lineno}: {error.msg} (column {error.colno})"])
        return None
    except (
        ValueError,
        RecursionError,
    ) as error:  # no text of any encoding, or numbers of thousands of digits
        findings.add("json-invalid", [f"{path.name}: {error}"])
        return None
    findings.add("json-duplicate-key", repeated)
    return check_kind(document, findings)


def check_kind(document: object, findings: Findings) -> Entry | None:
    """The document if it is of COCO's detection format; None, with a finding, if it is not."""
    if isinstance(document, list):
        first = document[0] if document else None
        kind = "a results file" if isinstance(first, dict) and "score" in first else "a JSON list"
        findings.add("json-other-kind", [f"{kind}, not an object"])
    elif not isinstance(document, dict):
        findings.add("json-other-kind", [f"a JSON {type(document).__name__}, not an object"])
    elif missing := [key for key in LISTS if not isinstance(document.get(key), list)]:
        findings.add("json-other-kind", [f"no list {key!r}" for key in missing])
    elif any(isinstance(a, dict) and "segments_info" in a for a in document["annotations"][:1]):
        findings.add("json-other-kind", ["a panoptic file: its annotations have 'segments_info', no boxes"])
    else:
        return document
    return None


def is_int(value: object, largest: int = LARGEST_ID) -> bool:
    """Whether a JSON value is a whole number that fits."""
    return isinstance(value, int) and not isinstance(value, bool) and -largest <= value <= largest


def repeated(values: Sequence[Any]) -> list[Any]:
    """What stands there more than once, once each."""
    return [value for value, count in Counter(values).items() if count > 1]


def check_categories(categories: list[Any], findings: Findings) -> ClassNames:
    """The classes in the order of their ids; each id once."""
    if not categories:
        findings.add("no-categories", ["found none"])
    good = [c for c in categories if _is_category(c)]
    findings.add(
        "category-broken",
        [f"categories[{k}] {told(c)}" for k, c in enumerate(categories) if not _is_category(c)],
    )
    findings.add("category-id-repeated", repeated([c["id"] for c in good]))
    names: dict[int, str] = {}
    for category in sorted(good, key=lambda c: int(c["id"])):
        names.setdefault(category["id"], str(category["name"]))
    alike: dict[str, list[str]] = {}
    for category_id, name in names.items():
        alike.setdefault(re.sub(r"\s+", " ", name).strip().casefold(), []).append(f"{category_id} {name!r}")
    for group in alike.values():
        same = {text.partition(" ")[2] for text in group}
        if len(group) > 1:
            code = "category-name-repeated" if len(same) == 1 else "category-names-alike"
            findings.add(code, [" and ".join(group)])
    return ClassNames(tuple(names.values()), tuple(names))


def _is_category(category: object) -> bool:
    if not isinstance(category, dict) or not is_int(category.get("id")):
        return False
    name = category.get("name")
    return is_int(name) or (isinstance(name, str) and name.strip() != "")


def check_listed(images: list[Any], findings: Findings) -> Listed:
    """The pictures that have an id of their own, a size and a name."""
    if not images:
        findings.add("no-pictures", ["'images' is empty"])
    with_id = [i for i in images if isinstance(i, dict) and is_int(i.get("id"))]
    if len(with_id) < len(images):
        broken = [k for k, i in enumerate(images) if not (isinstance(i, dict) and is_int(i.get("id")))]
        findings.add("picture-broken", [f"images[{k}]" for k in broken])
    findings.add("picture-id-repeated", repeated([i["id"] for i in with_id]))
    unsized = [i for i in with_id if not _has_size(i)]
    findings.add("picture-size-missing", [f"picture {i['id']}" for i in unsized])
    unsafe = [i for i in with_id if not _is_inside(i.get("file_name"))]
    findings.add("picture-name-unsafe", [f"picture {i['id']} {told(i.get('file_name'))}" for i in unsafe])
    left_out = {id(i) for i in (*unsized, *unsafe)}
    good = [i for i in with_id if id(i) not in left_out]
    findings.add("picture-listed-twice", repeated([posixpath.normpath(i["file_name"]) for i in good]))
    return Listed(
        [i["id"] for i in good], [(i["height"], i["width"]) for i in good], [i["file_name"] for i in good]
    )


def _has_size(image: Entry) -> bool:
    return all(is_int(image.get(key), LARGEST_SIDE) and image[key] > 0 for key in ("width", "height"))


def _is_inside(name: object) -> bool:
    """Whether a file name, as written, stays in the folder that it is relative to."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # no file can be called so
        return False
    parts = PurePosixPath(name.replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts and not name[1:2] == ":"
