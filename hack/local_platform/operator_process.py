"""The operator as a process of its own, with the rights that the chart gives it and nothing more."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from local_platform.chart import OPERATOR_NAMESPACE, RELEASE
from local_platform.commands import ROOT
from local_platform.control_plane import ControlPlane

SERVICE_HOST = f"{RELEASE}.{OPERATOR_NAMESPACE}.svc"

# A wait this long ends only in a failure.
PATIENCE_SECONDS = 120.0
Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """Return what `look` finds as soon as that is true.

    Raises:
        AssertionError: it did not find it in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.05)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Installed:
    """The chart's objects in the cluster, but for the Deployment, whose command line is run here instead."""

    plane: ControlPlane
    namespace: str
    arguments: tuple[str, ...]
    kubeconfig: Path


def _render(plane: ControlPlane, namespace: str, values: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod of the chart's Deployment, and a List of all other objects."""
    settings = [argument for value in values for argument in ("--set", value)]
    done = plane.run(
        *("helm", "template", RELEASE, str(ROOT / "charts" / RELEASE), "--namespace", namespace),
        *("--kube-version", "v1.36.0", "--set", "crds.enabled=false", *settings),
    )
    assert done.returncode == 0, done.stderr
    objects: list[dict[str, Any]] = [o for o in yaml.safe_load_all(done.stdout) if o]
    [deployment] = [o for o in objects if o["kind"] == "Deployment"]
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod, {"apiVersion": "v1", "kind": "List", "items": [o for o in objects if o is not deployment]}


def install(plane: ControlPlane, folder: Path, namespace: str, *values: str) -> Installed:
    """Apply the chart, rendered with these values, and make a kubeconfig with the token of its ServiceAccount."""
    pod, rest = _render(plane, namespace, values)
    plane.kubectl("create", "namespace", namespace)
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(rest))

    token = plane.kubectl("create", "token", pod["serviceAccountName"], "-n", namespace).strip()
    config = json.loads(plane.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    return Installed(plane, namespace, tuple(pod["containers"][0]["args"]), kubeconfig)


def upgrade(installed: Installed, *values: str) -> Installed:
    """Apply the chart again with other values."""
    pod, rest = _render(installed.plane, installed.namespace, values)
    installed.plane.kubectl("apply", "-f", "-", stdin=json.dumps(rest))
    return replace(installed, arguments=tuple(pod["containers"][0]["args"]))


@dataclass
class OperatorProcess:
    """One operator; it may be killed and started again."""

    installed: Installed
    log: Path
    pod_name: str = "operator-0"
    # The folder of the package finetune_api.
    api: Path = ROOT / "crds"
    # The program's module; a test may name a module that breaks something first.
    module: str = "finetune_operator"
    http_port: int = field(default_factory=_free_port)
    progress_port: int = field(default_factory=_free_port)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait for its readiness probe."""
        eventually(lambda: self.answers("/readyz"), f"the operator is ready; see {self.log}")

    def launch(self) -> None:
        """Start it."""
        assert self._process is None or self._process.poll() is not None, "it runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "error", "-m", self.module, *self.installed.arguments),
                    *("--http-port", str(self.http_port), "--progress-port", str(self.progress_port)),
                ],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.installed.kubeconfig),
                    "PYTHONPATH": f"{self.api}:{ROOT / 'operator'}:{ROOT}",
                    "POD_NAMESPACE": self.installed.namespace,
                    "POD_NAME": self.pod_name,
                },
            )

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended since."""
        return self._process is not None

    def answers(self, path: str) -> bool:
        """Say whether a probe succeeds."""
        assert self._process is not None
        assert self._process.poll() is None, f"the operator ended: {self.log.read_text()[-3000:]}"
        try:
            return bool(self.read(path))
        except OSError:
            return False

    def read(self, path: str) -> str:
        """Return what the plain HTTP port answers.

        Raises:
            OSError: it does not, or not well.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=PATIENCE_SECONDS) as response:
            text: str = response.read().decode()
            return text

    @property
    def leads(self) -> bool:
        """Whether it is the replica that reconciles."""
        return "finetune_leader 1.0" in self.read("/metrics")

    def pause(self) -> None:
        """Stop it in the middle of whatever it does, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume it after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def start_if_it_ended(self) -> None:
        """What Kubernetes does with a container that has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            self.start()

    def wait_for_end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Return its exit status, once it has ended by itself."""
        assert self._process is not None
        status = self._process.wait(timeout=seconds)
        self._process = None
        return status

    def ended(self) -> int | None:
        """Return its exit status if it ended by itself since it was started."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """End it as a node failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> float:
        """End it as the kubelet does; return how many seconds that took."""
        began = time.monotonic()
        status = self._end(signal.SIGTERM)
        assert status == 0, self.log.read_text()[-3000:]
        return time.monotonic() - began

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout=PATIENCE_SECONDS)
        self._process = None
        return status
