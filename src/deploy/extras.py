"""Packages that only some of what can be done with a detector needs."""

import importlib
import sys
from types import ModuleType
from typing import cast

LISTS = {
    "openvino": "openvino",
    "cv2": "video",
    "supervision": "supervision",
    "fastapi": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "transformers": "dev",
}
"""Packages, as they are imported, that stand in another list than `requirements-export.txt`."""


def require(name: str) -> ModuleType:
    """Import an optional package.

    OpenVINO is imported without its telemetry, which forks off a process that tells Intel of each use.

    Raises:
        ValueError: It is not installed; the message says what to install.
    """
    if name == "openvino":
        cast(dict[str, ModuleType | None], sys.modules).setdefault("openvino_telemetry", None)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        listed = f"requirements-{LISTS.get(name, 'export')}.txt"
        raise ValueError(f"the package '{name}' is not installed; run: pip install -r {listed}") from error
