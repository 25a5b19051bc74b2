"""The machine and the versions that a result belongs to."""

import os
import platform
from pathlib import Path

import jax

from benchmarks import peers


def machine():
    """Processor, cores that this process may use, memory, system."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory": _field("/proc/meminfo", "MemTotal"),
        "system": platform.system(),
        "jax_device": jax.devices()[0].device_kind,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _field(path, name):
    file = Path(path)
    if not file.exists():
        return None
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def versions():
    """Python, JAX, and each peer; the reason where a peer is not there."""
    found = {"python": platform.python_version(), "jax": jax.__version__}
    for name in peers.NAMES:
        found[name] = available(name) or peers.load(name).version()
    return found


def available(name):
    """None where a peer can be used, otherwise why not."""
    try:
        peers.load(name).version()
    except ImportError as error:
        return f"not available: {error}"
    return None
