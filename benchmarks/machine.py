"""Facts about the machine that belong to every figure, and what a process has used of it."""

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from attempt.machine.device import DTYPES
from model.files import write_whole

REPOSITORY = Path(__file__).parent.parent


def facts(device: torch.device) -> dict[str, Any]:
    """Processor, memory, versions and commit."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),  # above 0 at the start, others are at work too
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: package(name) for name in ("torch", "transformers", "peft")},
        "commit": commit(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["gpu_memory_gb"] = round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
        found["driver"] = said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0")
    return found


def announced(prog: str, argv: Sequence[str] | None, device: torch.device) -> dict[str, Any]:
    """The command and the facts, as they stand at the head of every file and, printed, of every table."""
    command = shlex.join([*prog.split(), *(sys.argv[1:] if argv is None else argv)])
    machine = facts(device)
    for key, value in {"command": command, **machine}.items():
        print(f"{key:13} {value}", flush=True)
    return {"command": command, "machine": machine}


def save(path: Path | None, content: dict[str, Any]) -> None:
    """Where a file is wanted: all figures and samples, as JSON."""
    if path is not None:
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode("utf-8"))


def processor() -> str:
    """The CPU's name as the system has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    units = [name for name in ("avx2", "avx512f", "amx_bf16") if name in flags]
    return f"{names[0] if names else platform.processor()} ({', '.join(units) or platform.machine()})"


def package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit that was measured, with a + where files differ from it."""
    git = ("git", "-C", str(REPOSITORY))
    changed = said(*git, "status", "--porcelain", "--untracked-files=no")
    return (said(*git, "rev-parse", "--short", "HEAD") or "unknown") + "+" * bool(changed)


def said(*command: str) -> str:
    """What a program prints; nothing where there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


class Product:
    """A square matrix product: the rate that the others are measured by."""

    def __init__(self, size: int, precision: str, device: torch.device) -> None:
        self.a, self.b = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
        self.repeats = 20 if device.type == "cuda" else 1
        self.operations = self.repeats * 2 * size**3

    def __call__(self) -> None:
        for _ in range(self.repeats):
            self.a @ self.b


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held: on a GPU as PyTorch counts it, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it started this process
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
