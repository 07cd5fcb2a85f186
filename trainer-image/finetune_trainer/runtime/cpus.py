"""The CPUs that this container may use."""

import contextlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@contextlib.contextmanager
def one_thread_per_cpu() -> Iterator[ThreadPoolExecutor]:
    """Run one thread per CPU, with torch's own threads off, which would compete for the same CPUs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cpus(), initializer=lambda: torch.set_num_threads(1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
