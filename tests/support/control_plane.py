"""The control plane of a test session, as a fixture."""

import os
from collections.abc import Iterator

import pytest

from local_platform.control_plane import ControlPlane, running


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane of this test session alone."""
    with running(f"t{os.getpid()}") as plane:
        yield plane
