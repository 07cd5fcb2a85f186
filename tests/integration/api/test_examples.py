from pathlib import Path

import pytest

from local_platform.commands import ROOT
from local_platform.control_plane import ControlPlane


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_accepted(control_plane: ControlPlane, path: Path) -> None:
    done = control_plane.run("kubectl", "apply", "--dry-run=server", "-f", str(path))
    assert (done.returncode, done.stderr) == (0, "")
