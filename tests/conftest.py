"""What every test can use: the repository on the path, and the material outside it."""

import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REPO_ROOT = Path(__file__).resolve().parent.parent
if str(REPO_ROOT) not in sys.path:
    sys.path.insert(0, str(REPO_ROOT))
sys.modules.setdefault("openvino_telemetry", None)  # openvino would fork and send


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden outputs and real pictures that lie beside the repository; without them the test is skipped."""
    folder = REPO_ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: golden outputs and real pictures are not part of the repository")
    return folder


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A run sets up logging for its process; the next test shall not write into its files, nor to stderr."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if type(handler).__module__.startswith("src.")]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def inductor() -> Iterator[None]:
    """PyTorch's compiler as users run it, with nothing compiled yet; skipped where it cannot work."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None or not Path(sysconfig.get_path("include"), "Python.h").is_file():
        pytest.skip(f"Inductor needs a C++ compiler ({compiler}) and Python's headers")
    torch.compiler.reset()
    yield
    torch.compiler.reset()
