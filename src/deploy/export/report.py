"""`export.json`: what is known of each exported file of a folder, an entry under each file's name."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ...files import write_whole

REPORT_FILE = "export.json"


def read_report(folder: Path) -> dict[str, Any]:
    """The entries of a folder's report by file name, none where there is no report.

    Raises:
        ValueError: A file of that name is damaged, or of another origin: it is never written over.
    """
    path = folder / REPORT_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); move it away or choose another folder"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("file"), str):  # of one file, as written before
        found = {found.pop("file"): found}
    if isinstance(found, dict) and all(isinstance(one, dict) and "sha256" in one for one in found.values()):
        return found
    raise ValueError(f"{path}: is no report of exported files; move it away or choose another folder")


def stage_report(stage: Path, folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Write the report that `folder` will have once what is staged is in it.

    Entries of files that are gone are left out.

    Args:
        stage: Holds the exported file `name`.
        folder: Where it goes.
        name: What `entry` is of.
        entry: Plain values; the file's digest is added.

    Raises:
        ValueError: As of `read_report`, or it cannot be written.
    """
    kept = {other: told for other, told in read_report(folder).items() if (folder / other).is_file()}
    report = {**kept, name: {"sha256": digest(stage / name), **entry}}
    write_whole(stage / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
