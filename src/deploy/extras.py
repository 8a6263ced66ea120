"""Packages that only export and the runtimes of exported files need."""

import importlib
from types import ModuleType


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
        listed = "requirements-openvino.txt" if name == "openvino" else "requirements-export.txt"
        raise ValueError(f"the package '{name}' is not installed; run: pip install -r {listed}") from error
