"""The operator with rights in the namespaces that the administrator named, and in no other."""

import time
from pathlib import Path

from local_platform.control_plane import ControlPlane
from local_platform.operator_process import OperatorProcess, install
from tests.support.fake_kubelet import World


def test_an_operator_of_some_namespaces_works_there_and_only_there(
    control_plane: ControlPlane, world: World, tmp_path: Path
) -> None:
    elsewhere = World(control_plane, f"{world.namespace}-2")
    control_plane.kubectl("create", "namespace", elsewhere.namespace)
    installed = install(control_plane, tmp_path, "some-namespaces", f"watchNamespaces={{{world.namespace}}}")
    operator = OperatorProcess(installed, tmp_path / "operator.log")
    operator.start()
    try:
        elsewhere.apply()
        world.apply()
        world.end("prepare")
        world.pod("train")
        time.sleep(0.5)
        assert "phase" not in elsewhere.status()
    finally:
        operator.stop()
    assert "Forbidden" not in operator.log.read_text()
