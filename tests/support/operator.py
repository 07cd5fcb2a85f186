"""The operator of a test session, as fixtures."""

from collections.abc import Iterator

import pytest

from local_platform.chart import OPERATOR_NAMESPACE
from local_platform.control_plane import ControlPlane
from local_platform.operator_process import Installed, OperatorProcess, eventually, install


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The chart as it is installed for all namespaces."""
    return install(control_plane, tmp_path_factory.mktemp("installed"), OPERATOR_NAMESPACE)


# The operator that the tests of a session share, once there is one.
SHARED = pytest.StashKey[OperatorProcess]()


@pytest.fixture(scope="session")
def operator_process(
    installed: Installed, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[OperatorProcess]:
    """An operator that all tests share; a test that ends it leaves it to the next to start it."""
    process = OperatorProcess(installed, tmp_path_factory.mktemp("operator") / "operator.log")
    request.session.stash[SHARED] = process
    yield process
    if process.runs:
        process.stop()


@pytest.fixture
def operator(operator_process: OperatorProcess) -> OperatorProcess:
    """The shared operator, running and leading: one that was killed before it may hold the Lease for a while."""
    if not operator_process.runs:
        operator_process.start()
    eventually(lambda: operator_process.leads, f"the operator leads; see {operator_process.log}")
    return operator_process
