"""Packages that only some of what can be done with a detector needs."""

import importlib
from types import ModuleType

LISTS = {
    "openvino": "openvino",
    "cv2": "video",
    "supervision": "supervision",
    "fastapi": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
}
"""Packages, as they are imported, that stand in another list than `requirements-export.txt`."""


def require(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ValueError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        listed = f"requirements-{LISTS.get(name, 'export')}.txt"
        raise ValueError(f"the package '{name}' is not installed; run: pip install -r {listed}") from error
