from pathlib import Path

import pytest
import torch

from src.deploy.comparison.machine import Machine, this_machine


def test_the_processors_name_comes_from_linux(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Fast: 3000 @ 2 GHz\nprocessor\t: 1\nmodel name\t: Slow\n"
    )
    assert this_machine(torch.device("cpu"), cpuinfo=cpuinfo).cpu == "Fast: 3000 @ 2 GHz"


def test_without_a_name_something_stands_there(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text("model name\t:\n")
    for name in ("cpuinfo", "absent"):
        assert this_machine(torch.device("cpu"), cpuinfo=tmp_path / name).cpu


def test_threads_and_versions_are_this_process_s():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        machine = this_machine(torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert machine.threads == 3 and machine.torch == torch.__version__ and machine.cores >= 1
    assert machine.gpu is None and machine.onnxruntime is None


def test_onnx_runtimes_version_where_it_is_used():
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    assert this_machine(torch.device("cpu"), onnx=True).onnxruntime == onnxruntime.__version__


def test_one_line_names_all_and_leaves_out_what_is_not_known():
    full = Machine("Fast 3000", 8, 4, 0.52, "H100", "3.10.1", "2.10.0", "1.20.0")
    assert full.line() == (
        "Fast 3000, 8 cores, 4 threads, load 0.5 at the start, H100, "
        "Python 3.10.1, torch 2.10.0, ONNX Runtime 1.20.0"
    )
    bare = full._replace(load=None, gpu=None, onnxruntime=None, threads=1)
    assert bare.line() == "Fast 3000, 8 cores, 1 thread, Python 3.10.1, torch 2.10.0"
