"""The local cluster does what the other tests rely on, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CLUSTER = Path(__file__).resolve().parents[2] / "hack" / "cluster"
PROMISED_START_SECONDS = 10
MANIFEST = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "probe"},
    "spec": {
        "backoffLimit": 0,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "main",
                        "resources": {"limits": {"nvidia.com/gpu": "2"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [
                            {"name": "token", "mountPath": "/token"},
                            {"name": "claim", "mountPath": "/claim"},
                        ],
                    }
                ],
                "volumes": [
                    {
                        "name": "token",
                        "projected": {
                            "sources": [
                                {
                                    "serviceAccountToken": {
                                        "path": "token",
                                        "audience": "probe",
                                        "expirationSeconds": 600,
                                    }
                                }
                            ]
                        },
                    },
                    {"name": "claim", "persistentVolumeClaim": {"claimName": "probe"}},
                ],
            }
        },
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "probe"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "probe", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


def run(*command: str, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        input=stdin,
        text=True,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def cluster(*arguments: str) -> str:
    return run(str(CLUSTER), *arguments)


def traces(name: str) -> dict[str, set[str]]:
    """Everything on the machine that this cluster has made; other clusters may run beside it."""
    processes = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_text(errors="replace").split("\0")
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        # A process that has ended has no arguments, and waits for its parent to take note.
        if not arguments[0]:
            continue
        if f"/{name}/" in " ".join(arguments[1:]) or f"/finetune-{name}/" in groups:
            processes.add(f"{entry.name} {arguments[0]}")
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    namespaces = Path("/run/netns")
    return {
        "processes": processes,
        "mounts": {mount for mount in mounts if name in mount},
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir() if name in path.name},
        "network namespaces": {path.name for path in namespaces.glob("*") if name in path.name},
        "control groups": {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/finetune-{name}")},
    }


def host_rules() -> list[str]:
    """The machine's own iptables rules, without their counters."""
    return [line for line in run("iptables-save").splitlines() if line.startswith(("-", "*"))]


@dataclass(frozen=True)
class Running:
    name: str
    env: dict[str, str]
    seconds: float

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run("kubectl", "--namespace=probe", *arguments, stdin=stdin, env=self.env)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))


def start(name: str, *arguments: str) -> Running:
    cluster("build", "--only", "control-plane" if arguments else "all")
    began = time.monotonic()
    cluster("up", "--name", name, *arguments)
    seconds = time.monotonic() - began
    return Running(name, json.loads(cluster("env", "--json", "--name", name)), seconds)


def test_a_control_plane_starts_in_seconds_and_ends_without_a_trace(capfd: pytest.CaptureFixture[str]) -> None:
    name = f"c{os.getpid()}"
    try:
        running = start(name, "--control-plane-only", "--with-s3")
        with capfd.disabled():
            print(f"\ncontrol plane up after {running.seconds:.1f} s (promised: {PROMISED_START_SECONDS} s)")
        running.apply(NAMESPACE, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}})
        assert traces(name)["processes"]
        cluster("status", "--name", name)

        cluster("kill", "--name", name, "versitygw")
        assert subprocess.run([CLUSTER, "status", "--name", name], capture_output=True, check=False).returncode == 1
        cluster("up", "--name", name, "--control-plane-only")
        cluster("status", "--name", name)

        cluster("restart", "--name", name, "etcd")
        running.kubectl("get", "configmap", "probe")
        cluster("reset", "--name", name)
        assert "probe" not in running.kubectl("get", "namespaces", "--output=name")
    finally:
        cluster("down", "--name", name)
    assert not any(traces(name).values())
    # Four times the promise: the machine may be busy with other things.
    assert running.seconds < 4 * PROMISED_START_SECONDS


@pytest.fixture
def full() -> Iterator[Running]:
    if os.geteuid() != 0:
        pytest.skip("kubelet and containerd need root")
    name = f"f{os.getpid()}"
    rules = host_rules()
    assert not any(traces(name).values())
    try:
        yield start(name)
        # Without this, an empty result at the end would prove nothing.
        assert all(traces(name).values())
    finally:
        cluster("down", "--name", name, "--purge")
    assert not any(traces(name).values())
    assert host_rules() == rules


@pytest.fixture
def busybox(full: Running) -> Iterator[str]:
    """The name of a tiny image in the cluster's registry."""
    image = "localhost/cluster-probe:1"
    container = run("buildah", "from", "scratch").strip()
    try:
        run("buildah", "copy", "--quiet", container, "/bin/busybox", "/bin/busybox")
        run("buildah", "commit", "--quiet", container, image)
    finally:
        run("buildah", "rm", container)
    try:
        yield cluster("push-image", "--name", full.name, image).strip()
    finally:
        run("buildah", "rmi", image)


@pytest.mark.e2e
def test_a_restricted_gpu_job_runs_in_a_full_cluster(
    full: Running, busybox: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        print(f"\nfull cluster up after {full.seconds:.1f} s")
    job = json.loads(json.dumps(MANIFEST))
    # busybox, linked statically, can not look names up itself except by its nslookup.
    script = """
        set -e
        busybox nslookup kubernetes.default.svc.cluster.local | busybox grep 10.96.0.1
        echo | busybox nc -w 5 10.96.0.1 443 && echo service reached
        busybox nc -w 2 192.0.2.1 80 2>/dev/null || echo nothing beyond the machine
        [ -s /token/token ] && echo has a token
        busybox touch /claim/file && echo claim writable
        printf done > /dev/termination-log
    """
    job["spec"]["template"]["spec"]["containers"][0] |= {
        "image": busybox,
        "command": ["/bin/busybox", "sh", "-c", script],
    }
    full.apply(NAMESPACE, CLAIM, job)
    full.kubectl("wait", "--for=condition=Complete", "--timeout=220s", "job/probe")

    logs = full.kubectl("logs", "job/probe").splitlines()
    assert logs[-4:] == ["service reached", "nothing beyond the machine", "has a token", "claim writable"]
    pod = json.loads(full.kubectl("get", "pods", "--output=json"))["items"][0]
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "done"
    cluster("status", "--name", full.name)

    # What the end-to-end tests do between two of them.
    cluster("reset", "--name", full.name)
    volumes = json.loads(full.kubectl("get", "persistentvolumes", "--output=json"))["items"]
    assert {volume["status"]["phase"] for volume in volumes} == {"Available"}
    # A pod that does not want to end must not survive the cluster either.
    stubborn = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stubborn", "namespace": "default"},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": busybox,
                    "command": ["/bin/busybox", "sh", "-c", "trap '' TERM; while true; do busybox sleep 1; done"],
                }
            ]
        },
    }
    run("kubectl", "apply", "-f", "-", stdin=json.dumps(stubborn), env=full.env)
    run("kubectl", "wait", "--for=condition=Ready", "--timeout=220s", "pod/stubborn", env=full.env)
    # `down` then finds containerd dead, as after a half-failed `up`.
    cluster("kill", "--name", full.name, "containerd")
