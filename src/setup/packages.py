"""Whether Python and the packages are there, in versions that go together; runs where torch is missing."""

import importlib
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Finding, Outcome, attempt

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PYTHON = (3, 10)
NEEDED = "requirements.txt"
IMPORTED = ("torch", "torchvision", "timm")  # what has compiled parts, and what fails with them
EXTRAS = {
    "requirements-export.txt": "ONNX export and ONNX Runtime",
    "requirements-lora.txt": "DINOv3Backbone.lora",
    "requirements-openvino.txt": "OpenVINO",
    "requirements-video.txt": "videos and cameras",
    "requirements-supervision.txt": "Result.to_supervision()",
    "requirements-serve.txt": "tools/serve.py",
}


def check_setup(
    root: Path, named: Sequence[Path], overrides: Sequence[str] = (), *, quick: bool
) -> Iterator[Finding]:
    """Check packages, and with these in place all the rest; the arguments are those of `check_all`."""
    findings = check_packages(root)
    yield from findings
    if any(finding.status == "fail" for finding in findings):
        yield Finding("all the rest", "warn", "not checked: it needs the packages", "")
        return
    from .checks import check_all

    yield from check_all(root, named, overrides, quick=quick)


def check_packages(root: Path) -> list[Finding]:
    """Python, the packages of `requirements*.txt` in `root`, and whether what is compiled can be imported."""
    findings = [Finding("Python", *_python())]
    try:
        __import__("packaging.requirements")  # other packages bring it
    except ModuleNotFoundError:
        return [*findings, Finding(NEEDED, "fail", "its packages are not installed", _install(NEEDED))]
    needed = _packages(root / NEEDED)
    findings.append(Finding(NEEDED, *needed))
    if needed.status == "ok":
        findings.append(Finding("torchvision for this torch", *_pair()))
        findings.append(attempt("imports", _imports))
    return findings + [Finding(name, *_packages(root / name, purpose)) for name, purpose in EXTRAS.items()]


def _imports() -> Outcome:
    for name in IMPORTED:
        importlib.import_module(name)
    return Outcome("ok", ", ".join(IMPORTED))


def _install(name: str) -> str:
    return f"{sys.executable} -m pip install -r {name}"


def _python() -> Outcome:
    told = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= PYTHON:
        return Outcome("ok", told)
    return Outcome("fail", told, f"make a virtual environment with Python {PYTHON[0]}.{PYTHON[1]} or later")


def _packages(path: Path, purpose: str = "") -> Outcome:
    """What of a file is missing or out of range; a fault where it is there for no purpose alone."""
    named = list(_requirements(path))
    faults = []
    for requirement in named:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} {version} is not {requirement.specifier}")
    needed_for = f" for {purpose}" if purpose else ""
    if not faults:
        return Outcome("ok", f"{len(named)} packages in range{needed_for}")
    return Outcome("warn" if purpose else "fail", "; ".join(faults) + needed_for, _install(path.name))


def _requirements(path: Path) -> Iterator["Requirement"]:
    """The packages that a file itself names, those of other systems left out."""
    from packaging.requirements import Requirement

    for line in path.read_text(encoding="utf-8").splitlines():
        stated = line.partition("#")[0].strip()
        if stated and not stated.startswith("-"):
            requirement = Requirement(stated)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def _pair() -> Outcome:
    """Torchvision is built for one torch and says so itself; a table of pairs would grow old."""
    from packaging.requirements import Requirement

    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    stated = [Requirement(text) for text in metadata.requires("torchvision") or ()]
    wanted = [requirement.specifier for requirement in stated if requirement.name == "torch"]
    told = f"{torchvision} wants torch {wanted[0] if wanted else 'of any version'}, which is {torch}"
    if all(specifier.contains(torch, prereleases=True) for specifier in wanted):
        return Outcome("ok", told)
    remedy = f"{sys.executable} -m pip install --force-reinstall torch torchvision (pip finds a pair)"
    return Outcome("fail", told, remedy)
