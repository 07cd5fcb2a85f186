"""A real API server: etcd, kube-apiserver and controller-manager on loopback, without root or nodes."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_api import GROUP, PLURAL
from local_platform.commands import ROOT
from local_platform.rest import Rest

CRD = ROOT / "crds" / f"{GROUP}_{PLURAL}.yaml"
_CLUSTER = ROOT / "hack" / "cluster"


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane; `environment` makes kubectl and helm find it."""

    name: str
    kubeconfig: Path
    environment: dict[str, str]

    @cached_property
    def rest(self) -> Rest:
        """Its API, as the administrator uses it."""
        return Rest.of(self.kubeconfig)

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program against this cluster; never raises for its exit status."""
        return subprocess.run(
            command,
            input=stdin,
            text=True,
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=120,
            check=False,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints.

        Raises:
            AssertionError: kubectl failed; the message is what a user would have read.
        """
        done = self.run("kubectl", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, manifest: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Apply one object as a user does, without asserting that the server takes it."""
        return self.run("kubectl", "apply", *arguments, "-f", "-", stdin=json.dumps(manifest))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get` finds, as an object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def restart(self, component: str) -> None:
        """Stop and start one component, such as `apiserver`, and wait until it is ready."""
        _cluster("restart", "--name", self.name, component)

    def signal(self, component: str, name: str) -> None:
        """Send one component a signal, such as STOP or CONT."""
        _cluster("kill", "--name", self.name, "--signal", name, component)

    def install_crd(self) -> None:
        """Install the generated CRD and wait until the API server serves it."""
        self.kubectl("apply", "--server-side", "-f", str(CRD))
        # Asking for a condition is an error as long as there are none at all; they come with the accepted names.
        named = f"jsonpath={{.status.acceptedNames.plural}}={PLURAL}"
        self.kubectl("wait", f"--for={named}", "--timeout=30s", f"crd/{PLURAL}.{GROUP}")
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{PLURAL}.{GROUP}")


def _cluster(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(_CLUSTER), *arguments], text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"cluster {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def running(name: str, *options: str) -> Iterator[ControlPlane]:
    """A control plane of that name, with the CRD installed; it is gone afterwards. `options` are those of `up`."""
    try:
        _cluster("up", "--control-plane-only", "--name", name, *options)
        environment: dict[str, str] = json.loads(_cluster("env", "--json", "--name", name))
        plane = ControlPlane(name, Path(environment["KUBECONFIG"]), environment)
        plane.install_crd()
        yield plane
    finally:
        _cluster("down", "--name", name)
