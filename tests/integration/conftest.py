from collections.abc import Iterator

import pytest

from local_platform import rest
from local_platform.control_plane import ControlPlane
from tests.support.control_plane import control_plane as control_plane
from tests.support.fake_kubelet import World
from tests.support.namespaces import namespace_of
from tests.support.operator import SHARED
from tests.support.operator import installed as installed
from tests.support.operator import operator as operator
from tests.support.operator import operator_process as operator_process


@pytest.fixture(autouse=True)
def _no_operator_unless_it_is_asked_for(request: pytest.FixtureRequest) -> None:
    """Stop the shared operator, which serves all namespaces, before a test that has another one, or none."""
    shared = request.session.stash.get(SHARED, None)
    if shared is not None and shared.runs and "operator_process" not in request.fixturenames:
        shared.stop()


@pytest.fixture
def world(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[World]:
    """A namespace of this test alone."""
    name = namespace_of(request.node.nodeid)
    control_plane.rest.call("POST", rest.path("namespaces", None), {"metadata": {"name": name}})
    yield World(control_plane, name)
    control_plane.rest.delete(rest.path("namespaces", None, name))
