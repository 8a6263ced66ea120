import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from src.setup import packages
from src.setup.findings import Finding
from src.setup.packages import check_packages, check_setup


@pytest.fixture
def versions(monkeypatch) -> dict[str, str]:
    """Versions that packages are to have instead of their own; "" for none."""
    changed: dict[str, str] = {}
    real = metadata.version

    def version(name: str) -> str:
        if changed.get(name) == "":
            raise metadata.PackageNotFoundError(name)
        return changed.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    return changed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text(
        "# what\ntorch>=2.10,<9\ntorchvision # the pair\nnumpy>=1.26\n"
    )
    (tmp_path / "requirements-export.txt").write_text("-r requirements.txt\nonnx>=1.21\n")
    (tmp_path / "requirements-lora.txt").write_text("peft>=0.1; python_version < '3'\n")
    (tmp_path / "requirements-openvino.txt").write_text("-r requirements-export.txt\nnumpy\n")
    (tmp_path / "requirements-video.txt").write_text("numpy\n")
    (tmp_path / "requirements-supervision.txt").write_text("numpy\n")
    (tmp_path / "requirements-serve.txt").write_text("numpy\n")
    return tmp_path


def by_name(root: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_packages(root)}


def test_this_machine_is_in_order(repo_root):
    found = by_name(repo_root)
    told = {name: (finding.status, finding.remedy) for name, finding in found.items()}
    needed = ("Python", "requirements.txt", "torchvision for this torch", "imports")
    assert [told[name] for name in needed] == [("ok", "")] * 4
    assert "packages in range" in found["requirements.txt"].told


def test_every_file_of_requirements_is_known(repo_root):
    files = {path.name for path in repo_root.glob("requirements*.txt")}
    assert files - {"requirements-dev.txt"} == {packages.NEEDED, *packages.EXTRAS}


def test_a_package_that_is_missing(root, versions):
    versions["numpy"] = ""
    found = by_name(root)
    assert found["requirements.txt"].status == "fail" and found["requirements.txt"].told == "numpy is missing"
    assert found["requirements.txt"].remedy == f"{sys.executable} -m pip install -r requirements.txt"
    assert "imports" not in found


def test_a_package_out_of_range(root, versions):
    versions["torch"] = "2.9.1+cpu"
    assert by_name(root)["requirements.txt"].told == "torch 2.9.1+cpu is not <9,>=2.10"


def test_an_extra_that_is_missing_is_no_fault(root, versions):
    versions["onnx"] = ""
    found = by_name(root)
    assert found["requirements-export.txt"].status == "warn"
    assert found["requirements-export.txt"].told == "onnx is missing for ONNX export and ONNX Runtime"
    assert found["requirements-lora.txt"].status == "ok"  # its package is for another Python


@pytest.mark.parametrize(
    ("wanted", "torch", "status"),
    [
        (["numpy", "torch==2.12.0"], "2.12.0+cu130", "ok"),
        (["numpy", "torch==2.12.0"], "2.12.1", "fail"),
        (["torch (>=2.14.0)"], "2.15.0", "ok"),
        (["torch (>=2.14.0)"], "2.13.0", "fail"),
        (None, "2.13.0", "ok"),
    ],
)
def test_torchvision_says_which_torch_it_is_for(root, versions, monkeypatch, wanted, torch, status):
    versions["torch"] = torch
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = by_name(root)["torchvision for this torch"]
    assert found.status == status and torch in found.told
    assert ("pip finds a pair" in found.remedy) == (status == "fail")


def test_a_package_that_cannot_be_imported(root, monkeypatch):
    def broken(name: str) -> None:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    found = by_name(root)["imports"]
    assert found.status == "fail" and "nms does not exist" in found.told


def test_an_old_python(root, monkeypatch):
    monkeypatch.setattr(packages, "PYTHON", (99, 0))
    assert by_name(root)["Python"].status == "fail"


def test_nothing_else_is_checked_before_the_packages_are_right(root, versions):
    versions["numpy"] = ""
    last = list(check_setup(root, [], quick=True))[-1]
    assert (last.check, last.status) == ("all the rest", "warn")


def test_the_door_opens_where_torch_and_packaging_are_missing(repo_root):
    hide = (
        "import runpy, sys\nfor name in ('torch', 'yaml', 'numpy', 'packaging'): sys.modules[name] = None\n"
    )
    run = "sys.argv = ['check_setup.py']; runpy.run_path('tools/check_setup.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hide + run], capture_output=True, text=True, cwd=repo_root, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "fail  requirements.txt" in done.stdout and "pip install -r requirements.txt" in done.stdout
    assert done.stdout.rstrip().endswith("1 ok, 1 warn, 1 fail")
