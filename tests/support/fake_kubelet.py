"""Plays user and kubelet where there are no nodes: FineTuneJobs from one, the status of pods from the other."""

import json
import time
from dataclasses import dataclass
from typing import Any

from finetune_api import GROUP, PLURAL, VERSION
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from local_platform import rest
from local_platform.control_plane import ControlPlane
from local_platform.operator_process import PATIENCE_SECONDS, eventually
from local_platform.rest import MERGE, Rest

Object = dict[str, Any]

RUN_ID = "a" * 64
SPEC: Object = {
    "model": {"s3": {"uri": "s3://models/llama/"}},
    "dataset": {"sources": [{"s3": {"uri": "s3://data/train.jsonl"}}]},
    "output": {"s3": {"uri": "s3://results/", "credentialsSecretRef": {"name": "s3"}}},
}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True)
class World:
    """One namespace, and the FineTuneJob `coach` in it."""

    plane: ControlPlane
    namespace: str
    name: str = "coach"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace."""
        return self.plane.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    @property
    def rest(self) -> Rest:
        """The API, as the administrator uses it."""
        return self.plane.rest

    def path(self, plural: str, name: str = "", subresource: str = "") -> str:
        """Return the path of an object in the namespace, or of a list."""
        return rest.path(plural, self.namespace, name, subresource)

    def items(self, plurals: str, *selectors: str) -> list[Object]:
        """Return what `kubectl get` lists; `selectors` are its -l and --field-selector."""
        if not all(map(rest.knows, plurals.split(","))):
            listed: list[Object] = json.loads(self.kubectl("get", plurals, *selectors, "-o", "json"))["items"]
            return listed
        parameters = {"-l": "labelSelector", "--field-selector": "fieldSelector"}
        query = {parameters[option]: value for option, value in zip(selectors[::2], selectors[1::2], strict=True)}
        return [o for plural in plurals.split(",") for o in self.rest.items(plural, self.namespace, **query)]

    def apply(self, **spec: Any) -> Object:
        """Create the FineTuneJob."""
        manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "FineTuneJob",
            "metadata": {"name": self.name},
            "spec": {**SPEC, **spec},
        }
        return self.rest.call("POST", self.path(PLURAL), manifest, fieldValidation="Strict")

    def patch(self, **spec: Any) -> None:
        """Change members of the spec."""
        changes = {"spec": spec}
        self.rest.call("PATCH", self.path(PLURAL, self.name), changes, content_type=MERGE, fieldValidation="Strict")

    def job(self) -> Object:
        """Return the FineTuneJob."""
        return self.rest.call("GET", self.path(PLURAL, self.name))

    def status(self) -> Object:
        """Return its status."""
        status: Object = self.job()["status"]
        return status

    def condition(self, kind: str) -> Object:
        """Return one of its conditions; empty if it has none of this type."""
        return next((c for c in self.status().get("conditions", []) if c["type"] == kind), {})

    def wait_for(self, kind: str, value: str = "True", seconds: float = PATIENCE_SECONDS) -> Object:
        """Wait for a condition."""
        return eventually(
            lambda: c if (c := self.condition(kind)).get("status") == value else {},
            f"{kind}={value}: {self.status()}",
            seconds,
        )

    def pod(
        self, stage: Stage, attempt: int = 0, seconds: float = PATIENCE_SECONDS, index: int | None = None
    ) -> Object:
        """Wait for the pod of an attempt, or for one of several by its index."""
        selector = f"finetune.dev/job={self.name},finetune.dev/stage={stage},finetune.dev/attempt={attempt}"
        if index is not None:
            selector += f",batch.kubernetes.io/job-completion-index={index}"
        return eventually(lambda: self.items("pods", "-l", selector), f"a {stage} pod, attempt {attempt}", seconds)[0]

    def _set(self, pod: Object, status: Object) -> None:
        name = pod["metadata"]["name"]
        self.rest.call("PATCH", self.path("pods", name, "status"), {"status": status}, content_type=MERGE)

    def _container(self, state: Object, *, ready: bool = False) -> Object:
        return {
            "name": "trainer",
            "image": "t",
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "state": state,
        }

    def run(self, stage: Stage, attempt: int = 0, index: int | None = None) -> Object:
        """Let the pod of an attempt run."""
        pod = self.pod(stage, attempt, index=index)
        running = self._container({"running": {"startedAt": _now()}}, ready=True)
        self._set(pod, {"phase": "Running", "startTime": _now(), "containerStatuses": [running]})
        return pod

    def hold(self, stage: Stage, reason: str, message: str) -> Object:
        """Let the pod wait for what its node lacks."""
        pod = self.pod(stage)
        waiting = self._container({"waiting": {"reason": reason, "message": message}})
        self._set(pod, {"phase": "Pending", "startTime": _now(), "containerStatuses": [waiting]})
        return pod

    def end(
        self, stage: Stage, attempt: int = 0, *, exit_code: int = 0, index: int | None = None, **members: Any
    ) -> None:
        """Let the container of an attempt end with a result of ours."""
        result = StageResult(stage=stage, exit_code=exit_code, run_id=RUN_ID, **members)
        pod = self.run(stage, attempt, index)
        terminated = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else "Error",
            "message": result.termination_message().decode(),
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        phase = "Succeeded" if exit_code == 0 else "Failed"
        self._set(pod, {"phase": phase, "containerStatuses": [self._container({"terminated": terminated})]})

    def let_go(self, pod: Object) -> None:
        """Let a bound pod that is being deleted go, as its node does once its container has ended."""
        self.rest.delete(self.path("pods", pod["metadata"]["name"]), gracePeriodSeconds=0)

    def bind(self, pod: Object, node: str = "node-1") -> None:
        """Bind a pod to a node, as the scheduler does: from then on only a kubelet can let it go."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod["metadata"]["name"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self.rest.call("POST", self.path("pods", pod["metadata"]["name"], "binding"), binding)
