import pytest

from tests.support.control_plane import ROOT, ControlPlane


@pytest.mark.parametrize("name", ["smallest", "guide", "demo"])
def test_an_example_is_accepted(control_plane: ControlPlane, name: str) -> None:
    done = control_plane.run("kubectl", "apply", "--dry-run=server", "-f", str(ROOT / f"examples/{name}.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
