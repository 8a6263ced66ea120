"""What a measurement ran on: without it no speed means anything."""

import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch

from ..extras import require

CPUINFO = Path("/proc/cpuinfo")


class Machine(NamedTuple):
    """Hardware and libraries of this process.

    Attributes:
        cpu: The processor's name.
        cores: Logical cores that this process may use.
        threads: Threads that one call uses on the CPU.
        load: Mean number of busy processes of the last minute, None where the system does not say.
        gpu: The GPU's name, None where the CPU alone computes.
        python: Version.
        torch: Version.
        onnxruntime: Version, None where it is not used.
        openvino: Version, None where it is not used.
    """

    cpu: str
    cores: int
    threads: int
    load: float | None
    gpu: str | None
    python: str
    torch: str
    onnxruntime: str | None
    openvino: str | None = None

    def line(self) -> str:
        """All of it as one line of text."""
        parts = [
            self.cpu,
            f"{self.cores} cores",
            f"{self.threads} {'thread' if self.threads == 1 else 'threads'}",
            *([] if self.load is None else [f"load {self.load:.1f} at the start"]),
            *([] if self.gpu is None else [self.gpu]),
            f"Python {self.python}",
            f"torch {self.torch}",
            *([] if self.onnxruntime is None else [f"ONNX Runtime {self.onnxruntime}"]),
            *([] if self.openvino is None else [f"OpenVINO {self.openvino}"]),
        ]
        return ", ".join(parts)


def this_machine(
    device: torch.device, *, onnx: bool = False, openvino: bool = False, cpuinfo: Path = CPUINFO
) -> Machine:
    """The machine as it is now.

    Args:
        device: Where PyTorch computes.
        onnx: Whether ONNX Runtime is used too.
        openvino: Whether OpenVINO is.
        cpuinfo: Linux's list of processors.

    Raises:
        ValueError: A package that is to be used is not installed.
    """
    return Machine(
        cpu=_cpu_name(cpuinfo),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=str(require("onnxruntime").__version__) if onnx else None,
        openvino=str(require("openvino").__version__).partition("-")[0] if openvino else None,
    )


def _cpu_name(cpuinfo: Path) -> str:
    """The first processor's name; the architecture where the system does not give one."""
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())
