"""An operator whose administrator allows some servers only. It is the only one that serves the namespace."""

from pathlib import Path

from local_platform.control_plane import ControlPlane
from local_platform.operator_process import OperatorProcess, install
from tests.support.fake_kubelet import World


def test_a_server_that_is_not_allowed_is_named_and_nothing_starts(
    control_plane: ControlPlane, world: World, tmp_path: Path
) -> None:
    installed = install(
        control_plane,
        tmp_path,
        "with-policy",
        f"watchNamespaces={{{world.namespace}}}",
        "policy.endpoints={*.corp,10.0.0.0/8}",
    )
    operator = OperatorProcess(installed, tmp_path / "operator.log")
    operator.start()
    try:
        world.apply(
            model={"persistentVolumeClaim": {"claimName": "models"}},
            dataset={"sources": [{"http": {"url": "http://169.254.169.254/latest", "sha256": "0a" * 32}}]},
            output={"s3": {"uri": "s3://results/", "endpoint": "https://minio.corp"}},
        )
        accepted = world.wait_for("Accepted", "False")
        assert accepted["reason"] == "EndpointNotAllowed"
        assert accepted["message"].startswith("spec.dataset.sources[0].http.url leads to 169.254.169.254, ")
        assert world.items("jobs") == []
    finally:
        operator.stop()
