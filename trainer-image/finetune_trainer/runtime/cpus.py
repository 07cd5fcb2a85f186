"""The number of CPUs that this container may use."""

import math
import os
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cpus() -> int:
    """Return how many CPUs this container may use; more threads than that make llama.cpp slower."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except OSError:
        return available
    return available if quota == "max" else max(1, min(available, math.ceil(int(quota) / int(period))))
