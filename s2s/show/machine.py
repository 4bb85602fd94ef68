"""What a run was measured on: processor, memory, versions. Numbers without these can't be compared."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from s2s import __version__


def machine_facts() -> dict[str, str]:
    """Name -> value as text, in the order to show: processor, cores, threads, memory, system, versions, GPU.

    Nothing here names the user, the host or a path, so that a report can be handed on.
    """
    import torch  # takes a second: only when asked

    facts = {
        "CPU": _cpu_model(),
        "cores": _cores(),
        "threads": str(torch.get_num_threads()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "s2s": __version__,
        "GPU": "none",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["GPU"] = ", ".join(f"{names.count(n)} x {n}" if names.count(n) > 1 else n for n in dict.fromkeys(names))
        facts["CUDA"] = str(torch.version.cuda)
    return facts


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far in MB (10^6 bytes); None where the system can't tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").split("\n"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> str:
    """Cores this process may use, and those of the machine where that is more."""
    total = os.cpu_count() or 1
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(total)
    quota = _read("/sys/fs/cgroup/cpu.max").split()  # "max 100000" or "200000 100000", inside a container
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:
        usable = min(usable, int(quota[0]) / int(quota[1]))
    return f"{usable:g}" if usable == total else f"{usable:g} of {total}"


def _memory() -> str:
    """Memory of the machine in GB (10^9 bytes), or the limit of the container where that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit() and int(limit) < total:
        return f"{int(limit) / 1e9:.1f} GB of {total / 1e9:.1f} GB"
    return f"{total / 1e9:.1f} GB"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
