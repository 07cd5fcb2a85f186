"""A control plane with kwok for its nodes, and the operator as a process beside it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.control_plane import pods

from local_platform import control_plane
from local_platform.chart import OPERATOR_NAMESPACE
from local_platform.control_plane import ControlPlane
from local_platform.operator_process import OperatorProcess, install

NAMESPACE = "benchmark"
_FLOW = "benchmark-operator"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cluster:
    """What runs."""

    plane: ControlPlane
    operator: OperatorProcess

    def cpu_seconds(self) -> float:
        """Return the processor time that the operator has taken since it started."""
        fields = Path(f"/proc/{self.operator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def machine_seconds(self) -> float:
        """Return the processor time that everything on this machine has taken since it started."""
        # user, nice, system, idle, iowait, irq, softirq, steal: proc(5)
        ticks = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4] - ticks[7]) / _CLOCK_TICKS

    def memory_mib(self) -> tuple[float, float]:
        """Return the operator's resident memory, now and at most since it started."""
        text = Path(f"/proc/{self.operator.pid}/status").read_text()
        now, most = (int(re.findall(rf"^{name}:\s+(\d+) kB", text, re.M)[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, most

    def passes(self) -> float:
        """Return how many passes the operator has made since it started."""
        found = re.findall(r"^finetune_reconcile_seconds_count\{.*\} (\S+)$", self.operator.read("/metrics"), re.M)
        return sum(map(float, found))

    def counted_jobs(self) -> float:
        """Return how many FineTuneJobs the operator's metrics show, in all phases."""
        found = re.findall(r"^finetune_jobs\{.*\} (\S+)$", self.operator.read("/metrics"), re.M)
        return sum(map(float, found))


def requests(metrics: str) -> float:
    """Return how many requests the API server has taken from the operator, by its own count."""
    counter = "apiserver_flowcontrol_dispatched_requests_total"
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith(counter + "{") and f'flow_schema="{_FLOW}"' in line
    )


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Start everything; nothing of it is left afterwards."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        plane = stack.enter_context(control_plane.running(f"b{os.getpid()}", "--with-scheduler"))
        for node in pods.nodes():
            plane.kubectl("create", "-f", "-", stdin=json.dumps(node))
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(_flow_schema()))
        plane.kubectl("create", "namespace", NAMESPACE)
        stack.enter_context(_kwok(plane, folder))
        plane.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "nodes", "--all")
        process = OperatorProcess(install(plane, folder, OPERATOR_NAMESPACE), folder / "operator.log")
        process.start()
        try:
            yield Cluster(plane, process)
        finally:
            if process.runs:
                process.stop()


@contextlib.contextmanager
def _kwok(plane: ControlPlane, folder: Path) -> Iterator[None]:
    config = folder / "kwok.yaml"
    config.write_text("\n---\n".join(json.dumps(stage) for stage in pods.stages()))
    program = Path(plane.environment["PATH"].split(":")[0]) / "kwok"
    command = [str(program), "--kubeconfig", str(plane.kubeconfig), "--config", str(config), "--manage-all-nodes"]
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, (folder / "kwok.log").read_text()[-3000:]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _flow_schema() -> dict[str, object]:
    """The operator's requests as the API server files them by default, but under a name by which they are counted."""
    account = {
        "kind": "ServiceAccount",
        "serviceAccount": {"name": "finetune-operator", "namespace": OPERATOR_NAMESPACE},
    }
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": _FLOW},
        "spec": {
            "priorityLevelConfiguration": {"name": "workload-low"},
            "matchingPrecedence": 800,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [
                {
                    "subjects": [account],
                    "resourceRules": [everything],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                }
            ],
        },
    }
