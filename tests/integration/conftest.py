from collections.abc import Iterator

import pytest

from local_platform.control_plane import ControlPlane
from tests.support.control_plane import control_plane as control_plane
from tests.support.fake_kubelet import World
from tests.support.namespaces import namespace_of
from tests.support.operator import installed as installed
from tests.support.operator import operator as operator
from tests.support.operator import operator_process as operator_process


@pytest.fixture
def world(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[World]:
    """A namespace of this test alone."""
    name = namespace_of(request.node.nodeid)
    control_plane.kubectl("create", "namespace", name)
    yield World(control_plane, name)
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
