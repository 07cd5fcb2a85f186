"""Gives each worker of pytest-xdist CPUs of its own: threads of two that wait for each other take longer than one's."""

import os

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _cpus = sorted(os.sched_getaffinity(0))
    _number, _workers = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    # More workers than CPUs share them.
    os.sched_setaffinity(0, _cpus[_number % len(_cpus) :: _workers])
