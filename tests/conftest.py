"""No test depends on how fast the machine is, and workers of pytest-xdist do not get in each other's way."""

import os

from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# CPUs of its own for each worker: threads of two that wait for each other take longer than one's.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _cpus = sorted(os.sched_getaffinity(0))
    _number, _workers = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    # More workers than CPUs share them.
    os.sched_setaffinity(0, _cpus[_number % len(_cpus) :: _workers])
