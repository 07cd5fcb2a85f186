"""A real Kueue beside a control plane: its CRDs, its controller as a process, and its webhooks on loopback."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from local_platform.control_plane import ControlPlane
from local_platform.operator_process import eventually
from tests.support.s3_server import free_port

Object = dict[str, Any]

_BIN = Path(os.environ.get("FINETUNE_CACHE", Path.home() / ".cache/finetune-operator")) / "bin"
# Of the webhooks, those of Kueue's own kinds and of Jobs: the controller below serves no others.
_SERVED = ("kueue-x-k8s-io", "batch-v1-job")
# With a certificate of ours for the webhooks, Kueue insists on one for its metrics too, below /etc. It gets an /etc of
# its own, with nothing else in it.
_IN_PRIVATE_ETC = (
    *("unshare", "--mount", "sh", "-ec"),
    'mount -t tmpfs kueue /etc; mkdir -p /etc/kueue/metrics; ln -s "$1" /etc/kueue/metrics/certs; shift; exec "$@"',
    "sh",
)
_FLAVOR = "any"
API_VERSION = "kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"


class Kueue:
    """The controller, and what an administrator makes with it."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._manifests = (_BIN / "kueue").resolve().parent / "config/components"
        self._health, self._webhook = free_port(), free_port()

    @contextmanager
    def running(self) -> Iterator["Kueue"]:
        """Run the controller inside; its kinds and webhooks stay."""
        self._plane.kubectl("apply", "--server-side", "-f", str(self._manifests / "crd/bases"))
        self._plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        self._certificate()
        (self._folder / "config.yaml").write_text(json.dumps(self._configuration()))
        arguments = ["--config", str(self._folder / "config.yaml"), "--feature-gates", "VisibilityOnDemand=false"]
        log = self._folder / "kueue.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_IN_PRIVATE_ETC, str(self._folder), str(_BIN / "kueue"), *arguments],
                env=os.environ | self._plane.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: self._is_ready(process, log), f"Kueue is ready; see {log}", 60)
            self._install_webhooks()
            yield self
        finally:
            process.terminate()
            process.wait(30)

    def queues(self, namespace: str, **quotas: dict[str, str]) -> None:
        """Make LocalQueues of these names, each with a ClusterQueue of its own, whose quota is given by resource.

        In them a higher priority preempts a lower one.
        """
        self._apply({"kind": "ResourceFlavor", "metadata": {"name": _FLAVOR}, "spec": {}})
        for queue, quota in quotas.items():
            resources = [{"name": name, "nominalQuota": amount} for name, amount in quota.items()]
            groups = [{"coveredResources": list(quota), "flavors": [{"name": _FLAVOR, "resources": resources}]}]
            cluster_queue = f"{namespace}-{queue}"
            spec = {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": groups,
            }
            self._apply({"kind": "ClusterQueue", "metadata": {"name": cluster_queue}, "spec": spec})
            metadata = {"name": queue, "namespace": namespace}
            self._apply({"kind": "LocalQueue", "metadata": metadata, "spec": {"clusterQueue": cluster_queue}})

    def priority(self, name: str, value: int) -> None:
        """Make a WorkloadPriorityClass."""
        self._apply({"kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value})

    def _apply(self, body: Object) -> None:
        done = self._plane.apply({"apiVersion": API_VERSION, **body})
        assert done.returncode == 0, done.stderr

    def _is_ready(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        command = ["curl", "--silent", "--fail", f"http://127.0.0.1:{self._health}/readyz"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _certificate(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kueue"]
        files = ["-keyout", str(self._folder / "tls.key"), "-out", str(self._folder / "tls.crt")]
        subprocess.run([*command, *files, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)

    def _configuration(self) -> Object:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": self._webhook, "certDir": str(self._folder)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "integrations": {"frameworks": ["batch/job"]},
        }

    def _install_webhooks(self) -> None:
        authority = base64.b64encode((self._folder / "tls.crt").read_bytes()).decode()
        for configuration in yaml.safe_load_all((self._manifests / "webhook/manifests.yaml").read_text()):
            kept = []
            for webhook in configuration["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                if any(part in path for part in _SERVED):
                    url = f"https://127.0.0.1:{self._webhook}{path}"
                    kept.append(webhook | {"clientConfig": {"url": url, "caBundle": authority}})
            configuration["webhooks"] = kept
            configuration["metadata"]["name"] = f"kueue-{configuration['metadata']['name']}"
            done = self._plane.apply(configuration)
            assert done.returncode == 0, done.stderr
