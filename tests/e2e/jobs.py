"""What the end-to-end tests do to jobs, pods and the operator."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from local_platform.chart import OPERATOR_NAMESPACE
from local_platform.commands import ROOT, PlatformError, run
from local_platform.platform import Platform

# More than any job takes on a busy machine, and less than the test may take.
FINISH_SECONDS = 1500
# More than any other event of a job takes there.
DIAGNOSIS_SECONDS = 600
# How kubectl says that the API server is away, or has just come back.
_AWAY = ("refused", "EOF", "reset", "timeout", "not ready", "unable to", "ServiceUnavailable")
_AWAY_SECONDS = 120


class SturdyPlatform(Platform):
    """A platform whose API server a test may be restarting."""

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl, again while the API server is away; all that tests do with it can be done twice."""
        deadline = time.monotonic() + _AWAY_SECONDS
        while True:
            try:
                return super().kubectl(*arguments, stdin=stdin, timeout=timeout)
            except PlatformError as error:
                if not any(text in str(error) for text in _AWAY) or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)


def demo_job(name: str, **changes: Any) -> dict[str, Any]:
    """Return examples/demo.yaml under another name; a change is a path such as training__maxSteps=4."""
    job: dict[str, Any] = yaml.safe_load((ROOT / "examples/demo.yaml").read_text())
    job["metadata"] = {"name": name}
    # Several jobs at a time fit on a node of two CPUs.
    for resources in job["spec"]["compute"]["resources"].values():
        resources["requests"]["cpu"] = "50m"
    for path, value in changes.items():
        node = job["spec"]
        *parents, last = path.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = copy.deepcopy(value)
    return job


def tiny_job(name: str, model: str, *, steps: int, checkpoint_every: int, **changes: Any) -> dict[str, Any]:
    """Return a job that trains the random model at the URI `model`; unless a change says so, there is no GGUF."""
    settings: dict[str, Any] = {
        "model__s3": {"uri": model},
        "model__quantization": "None",
        "training__maxSteps": steps,
        "training__checkpoint": {"everySteps": checkpoint_every},
        "export__gguf": [],
    }
    return demo_job(name, **settings | changes)


def create(platform: Platform, namespace: str, job: dict[str, Any]) -> str:
    """Apply a job and return its uid."""
    platform.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(job))
    uid: str = platform.job(namespace, job["metadata"]["name"])["metadata"]["uid"]
    return uid


def condition(job: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition, or an empty one."""
    return next((c for c in job.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def finished(platform: Platform, namespace: str, name: str) -> dict[str, Any]:
    """Wait until a job is finished and return it."""

    def done() -> dict[str, Any] | None:
        job = platform.job(namespace, name)
        return job if condition(job, "Finished").get("status") == "True" else None

    job: dict[str, Any] = platform.wait(f"{namespace}/{name} is finished", done, FINISH_SECONDS)
    return job


def ready_with(platform: Platform, namespace: str, name: str, reason: str) -> dict[str, str] | None:
    """Return the Ready condition of a job if it has this reason."""
    ready = condition(platform.job(namespace, name), "Ready")
    return ready if ready.get("reason") == reason else None


def has_checkpoint(platform: Platform, namespace: str, uid: str) -> bool:
    """Say whether a complete checkpoint of the job with this uid is in the bucket."""
    return any("complete.json" in key for key in platform.objects(f"{namespace}/.runs/{uid}/checkpoints/"))


def metrics(platform: Platform, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a finished run recorded of each step."""
    return [json.loads(line) for line in platform.read(f"{_run(job)}/metrics.jsonl").splitlines() if line]


def assert_resumed_once(platform: Platform, job: dict[str, Any], steps: int) -> None:
    """Fail unless the second attempt continued from a checkpoint, and each step was recorded once."""
    recorded = [line["step"] for line in metrics(platform, job)]
    assert recorded == sorted(set(recorded)), "a step was recorded twice"
    assert recorded[-1] == steps
    assert "resum" in platform.read(f"{_run(job)}/logs/train-1.log").decode().lower()


def _run(job: dict[str, Any]) -> str:
    return f"{job['metadata']['namespace']}/{job['metadata']['name']}/{job['status']['runId']}"


def stage(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a stage's status, or an empty one."""
    return next((s for s in job.get("status", {}).get("stages", []) if s["name"] == name), {})


def wait_for_stage(platform: Platform, namespace: str, name: str, stage_name: str) -> None:
    """Wait until a stage's pod runs."""

    def running() -> bool:
        pods = live_pods(platform, namespace, stage_name)
        return any(p["status"].get("phase") == "Running" for p in pods)

    platform.wait(f"a running {stage_name} pod of {namespace}/{name}", running, FINISH_SECONDS)


def live_pods(platform: Platform, namespace: str, stage_name: str) -> list[dict[str, Any]]:
    """Return the pods of a stage that are not over."""
    pods = platform.get("pods", "-n", namespace, "-l", f"finetune.dev/stage={stage_name}")["items"]
    return [p for p in pods if p["status"].get("phase") not in ("Succeeded", "Failed")]


def kill_trainer(pod_uid: str) -> None:
    """Kill -9 the trainer's processes in a pod, from the node, as the kernel's OOM killer would end them."""
    killed = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            cgroup = (folder / "cgroup").read_text().replace("_", "-")
            command = (folder / "cmdline").read_bytes()
            if f"pod{pod_uid}" in cgroup and b"finetune_trainer" in command:
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    assert killed, f"no trainer process of pod {pod_uid} on this machine"


def kill_operator(platform: Platform) -> None:
    """End the operator without warning; its Deployment starts another one."""
    platform.kubectl(
        "delete", "pod", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=finetune-operator",
        "--grace-period=0", "--force",
    )  # fmt: skip


def restart(component: str) -> None:
    """Restart a component of the local cluster."""
    from local_platform.platform import CLUSTER

    run(CLUSTER, "restart", component)


class Watch:
    """A `kubectl get --watch` that remembers every object it was shown; begun again when the API server was away."""

    def __init__(self, platform: Platform, kind: str, namespace: str) -> None:
        self._command = ["kubectl", "get", kind, "-n", namespace, "--watch", "--output-watch-events", "-o", "json"]
        self._env = {**os.environ, **platform.env}
        # RESTARTED, with an empty object, where it was begun again: what is still there then comes as ADDED.
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._stopped = threading.Event()
        self._process = self._begin()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self._env
        )

    def _read(self) -> None:
        while True:
            self._read_one()
            if self._stopped.wait(0.5):
                return
            self.events.append(("RESTARTED", {}))
            self._process = self._begin()
            if self._stopped.is_set():
                self._process.terminate()

    def _read_one(self) -> None:
        decoder, buffer = json.JSONDecoder(), ""
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                buffer += line
                with contextlib.suppress(json.JSONDecodeError):
                    event, end = decoder.raw_decode(buffer.lstrip())
                    buffer = buffer.lstrip()[end:]
                    # Beside them there are errors, as of an API server that ends.
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        self.events.append((event["type"], event["object"]))

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()
        self._process.terminate()
        self._thread.join()

    def objects(self) -> list[dict[str, Any]]:
        """Return every state of every object that it was shown."""
        return [found for kind, found in self.events if kind != "RESTARTED"]

    def most_live_at_once(self, stage_name: str) -> int:
        """Return how many pods of a stage were live at the same time, at most; a Pending pod is live."""
        live: set[str] = set()
        most = 0
        for kind, pod in self.events:
            if kind == "RESTARTED":
                live.clear()
                continue
            metadata = pod["metadata"]
            if metadata.get("labels", {}).get("finetune.dev/stage") != stage_name:
                continue
            if kind == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed"):
                live.discard(metadata["uid"])
            else:
                live.add(metadata["uid"])
            most = max(most, len(live))
        return most
