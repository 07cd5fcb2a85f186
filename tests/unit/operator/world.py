"""A small cluster in memory: the API server, the Job controller, kubelets, the garbage collector and this operator.

Every part moves only when the test says so, which decides the order. The operator's pass is cut into its calls.
"""

import marshal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_api.status import FineTuneJobStatus
from finetune_operator.clock import format_time
from finetune_operator.control.reconciler import may_continue, wait_for_next
from finetune_operator.decide.decide import decide
from finetune_operator.decide.decision import (
    Action,
    CreateJob,
    DeleteConfigMap,
    DeleteFineTuneJob,
    DeleteJob,
    Deletion,
    EnsureService,
    KubernetesEvent,
    UpdateConfigMap,
)
from finetune_operator.decide.diagnose import needs_events
from finetune_operator.decide.job_and_pod import condition, is_live_job, is_live_pod
from finetune_operator.decide.kueue_wait import held
from finetune_operator.decide.observation import Observation
from finetune_operator.job_defaults import Settings

Object = dict[str, Any]
Found = TypeVar("Found")
RUN_ID = "a" * 64

SETTINGS = Settings(
    trainer_image="registry.local/trainer:1",
    operator_version="1.0.0",
    progress_url_base="https://finetune-operator.finetune-system.svc:8443",
    ca_pem="first CA",
)


def spec(**members: Any) -> Object:
    """The smallest valid spec, and what is added to it."""
    return {
        "model": {"huggingFace": {"repository": "org/model"}},
        "dataset": {"sources": [{"configMap": {"name": "rows", "key": "train.jsonl"}}]},
        "output": {"s3": {"uri": "s3://models/tuned", "credentialsSecretRef": {"name": "s3"}}},
        **members,
    }


def success(stage: Stage, **members: Any) -> str:
    return StageResult(stage=stage, exit_code=0, run_id=RUN_ID, **members).termination_message().decode()


def failure(stage: Stage, code: int, message: str, **members: Any) -> str:
    result = StageResult(stage=stage, exit_code=code, message=message, **members)
    return result.termination_message().decode()


def _exit_code(pod: Object) -> int:
    code: int = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    return code


def copied(found: Found) -> Found:
    """Return a deep copy of what is made of JSON's types, in a tenth of the time that the `copy` module takes."""
    copy: Found = marshal.loads(marshal.dumps(found))
    return copy


class RefusedError(Exception):
    """The API server's 403 or 422."""


class PassEndsError(Exception):
    """A conflict, or a name that is taken."""


JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"


def job_name(pod: Object) -> str:
    """The Job of a pod."""
    name: str = pod["metadata"]["labels"][JOB_NAME]
    return name


class World:
    """One namespace, and in it one name for FineTuneJobs."""

    def __init__(self, job_spec: Object | None = None, settings: Settings = SETTINGS) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.settings = settings
        self.spec = job_spec or spec()
        self.resource: Object | None = None
        self.history: list[Object] = []
        self.jobs: list[Object] = []
        self.pods: list[Object] = []
        self.config_maps: list[Object] = []
        self.services: list[Object] = []
        self.cluster_events: list[Object] = []
        self.events: list[KubernetesEvent] = []
        self.created: list[Object] = []
        # Jobs that the operator deleted, each with the status that it had read.
        self.deleted: list[tuple[Object, FineTuneJobStatus]] = []
        # Of the Job that is held back. None: the cluster has no Kueue.
        self.workloads: list[Object] | None = []
        self.refusal: str | None = None
        # What the last pass that came to its end asked for.
        self.last_requeue: float | None = None
        # Told the names of the Jobs that a pass is about to create.
        self.creates: Callable[[str], None] = lambda name: None
        self._versions = 0
        self._uids = 0
        self.create()

    # The user.

    def create(self) -> None:
        self._uids += 1
        metadata = {
            "name": "coach",
            "namespace": "team",
            "uid": f"{self._uids:05d}-0000",
            "generation": 1,
            "resourceVersion": self._version(),
            "creationTimestamp": format_time(self.now),
        }
        self._store({"metadata": metadata, "spec": copied(self.spec), "status": {"observedGeneration": -1}})

    def edit(self, **compute: Any) -> None:
        self.patch(compute=compute)

    def patch(self, **members: Any) -> None:
        changed = copied(self.job)
        changed["spec"] |= members
        changed["metadata"]["generation"] += 1
        changed["metadata"]["resourceVersion"] = self._version()
        self._store(changed)

    def delete(self) -> None:
        """In the background: the object is gone, its children are not yet."""
        self.resource = None

    def delete_job(self, job: Object, *, foreground: bool = False) -> None:
        if foreground:
            job["metadata"]["deletionTimestamp"] = format_time(self.now)
            job["metadata"]["resourceVersion"] = self._version()
        else:
            self.jobs.remove(job)
        for pod in self.pods_of(job):
            self.delete_pod(pod)

    def delete_pod(self, pod: Object) -> None:
        """A live pod lingers until its container ends; one that is over goes at once."""
        pod["metadata"]["deletionTimestamp"] = format_time(self.now)
        if not is_live_pod(pod):
            self.pods.remove(pod)

    # The cluster.

    def hold(self, job: Object) -> None:
        """A queue holds a Job: its pods go, uncounted, and it stays."""
        job["spec"]["suspend"] = True
        job["started"] = []
        self._suspended(job, "True")
        for pod in self.pods_of(job):
            self.delete_pod(pod)

    def admit(self, job: Object) -> None:
        """The queue lets it run."""
        job["spec"]["suspend"] = False
        self._suspended(job, "False")

    def _suspended(self, job: Object, value: str) -> None:
        found = {"type": "Suspended", "status": value, "lastTransitionTime": format_time(self.now)}
        job["status"] = {"conditions": [found]}
        job["metadata"]["resourceVersion"] = self._version()

    def lacking(self, job: Object) -> list[int]:
        """The indices of which the Job controller creates a pod as soon as it acts."""
        started = job.get("started") or []
        if not is_live_job(job) or job["spec"].get("suspend") or job["metadata"].get("deletionTimestamp"):
            return []
        # After a suspension the first pods wait for the end of those that it deleted.
        if (self.pods_of(job) and not started) or self._has_failed(job):
            return []
        return [index for index in range(job["spec"]["completions"]) if index not in started]

    def start_pod(self, job: Object) -> Object:
        """The Job controller creates the one pod of a Job, or the next one of several."""
        name, labels = job["metadata"]["name"], dict(job["spec"]["template"]["metadata"]["labels"])
        started = job.get("started") or []
        index, suffix = len(started), "x"
        if job["spec"].get("completionMode") == "Indexed":
            labels[INDEX], suffix = str(index), f"{index}-x"
        metadata = {
            "name": f"{name}-{suffix}",
            "uid": f"pod-of-{name}-{suffix}",
            "labels": {**labels, JOB_NAME: name},
            "creationTimestamp": format_time(self.now),
        }
        pod = {"metadata": metadata, "spec": copied(job["spec"]["template"]["spec"])}
        pod["status"] = {"phase": "Pending"}
        job["started"] = [*started, index]
        self.pods.append(pod)
        return pod

    def run_pod(self, pod: Object, node: str = "node-a") -> None:
        pod["spec"]["nodeName"] = node
        state = {"running": {"startedAt": format_time(self.now)}}
        pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state}]}

    def end_pod(self, pod: Object, code: int, message: str = "", reason: str = "", *, disrupted: bool = False) -> None:
        started = format_time(self.now)
        for container in pod["status"].get("containerStatuses", []):
            started = container["state"]["running"]["startedAt"]
        terminated = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message,
            "startedAt": started,
            "finishedAt": format_time(self.now),
        }
        pod["status"] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "trainer", "state": {"terminated": terminated}}],
        }
        if disrupted:
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]

    def settle(self) -> None:
        """The Job controller and the garbage collector do what is due."""
        uid = self.resource["metadata"]["uid"] if self.resource else None
        for job in list(self.jobs):
            if job["metadata"]["ownerReferences"][0]["uid"] != uid:
                self.delete_job(job)
        self.config_maps = [c for c in self.config_maps if c["metadata"]["ownerReferences"][0]["uid"] == uid]
        self.services = [s for s in self.services if s["metadata"]["ownerReferences"][0]["uid"] == uid]
        for pod in list(self.pods):
            if not self._job_of(pod):
                pod["metadata"].setdefault("deletionTimestamp", format_time(self.now))
        for job in list(self.jobs):
            self._conclude(job)
        for pod in list(self.pods):
            if pod["metadata"].get("deletionTimestamp") and not is_live_pod(pod):
                self.pods.remove(pod)
        for job in list(self.jobs):
            if job["metadata"].get("deletionTimestamp") and not self.pods_of(job):
                self.jobs.remove(job)

    def blind(self, job: Object) -> None:
        """The Job controller missed the creation of a pod: from a failure it concludes nothing."""
        job["blind"] = True

    def _conclude(self, job: Object) -> None:
        pods = self.pods_of(job)
        rules = job["spec"]["podFailurePolicy"]["rules"]
        codes = [code for r in rules if "onExitCodes" in r for code in r["onExitCodes"]["values"]]
        if not is_live_job(job):
            return
        if self._has_failed(job):
            for pod in filter(is_live_pod, pods):
                pod["metadata"].setdefault("deletionTimestamp", format_time(self.now))
        elif self.lacking(job):
            return
        if any(map(is_live_pod, pods)):
            return
        if job.get("blind") and self._has_failed(job):
            self._write_of_job_controller(job, {"failed": 1})
            return
        if not job.get("started"):
            # Of the pods that a suspension deleted only one that a rule names fails the Job.
            pods = [p for p in pods if condition(p, "DisruptionTarget") or _exit_code(p) in codes]
            if not pods:
                return
        kind, message = "Failed", "Job has reached the specified backoff limit"
        if pods and not self._has_failed(job):
            kind, message = "Complete", "Reached expected number of succeeded pods"
        for pod in pods:
            code = _exit_code(pod)
            if pod["status"]["phase"] == "Succeeded":
                continue
            if condition(pod, "DisruptionTarget"):
                message = "Pod team/x has condition DisruptionTarget matching FailJob rule at index 0"
            elif code in codes:
                message = (
                    f"Container trainer for pod team/x failed with exit code {code} matching FailJob rule at index 1"
                )
        found = {"type": kind, "status": "True", "message": message, "lastTransitionTime": format_time(self.now)}
        self._write_of_job_controller(job, {"conditions": [found]})

    def _write_of_job_controller(self, job: Object, status: Object) -> None:
        if job.get("status") != status:
            job["status"] = status
            job["metadata"]["managedFields"] = [
                {"manager": "finetune-operator", "time": job["metadata"]["creationTimestamp"]},
                {"manager": "job-controller", "subresource": "status", "time": format_time(self.now)},
            ]
            job["metadata"]["resourceVersion"] = self._version()

    def _has_failed(self, job: Object) -> bool:
        """Whether a pod failed, or one that was there is gone."""
        started, pods = job.get("started") or [], self.pods_of(job)
        return bool(started) and (len(pods) < len(started) or any(p["status"]["phase"] == "Failed" for p in pods))

    # The operator.

    def operator_pass(self, resource: Object | None = None) -> Iterator[None]:
        """One pass; it stands still after every call to the API server, where others may move, or it may be killed."""
        resource = copied(resource or self.resource)
        if resource is None:
            return
        yield
        observation = Observation.of(
            resource,
            jobs=copied(self.jobs),
            pods=copied(self.pods),
            config_maps=copied(self.config_maps),
        )
        uids = {x["metadata"]["uid"] for x in needs_events(observation)}
        events = [e for e in self.cluster_events if e["involvedObject"]["uid"] in uids]
        asked = held(observation) is not None and self.workloads is not None
        workloads = tuple(self.workloads or ()) if asked else None
        observation = replace(observation, events=tuple(events), workloads=workloads)
        for _ in range(5):
            decision = decide(observation, self.now, self.settings)
            starts = [a.body["metadata"]["name"] for a in decision.actions if isinstance(a, CreateJob)]
            if resource["spec"].get("suspend") and starts:
                raise AssertionError("a job that is suspended starts something")
            yield
            for name in starts:
                self.creates(name)
            answers: list[Object] = []
            try:
                for action in decision.actions:
                    if isinstance(action, DeleteJob):
                        named = [j for j in observation.jobs if j["metadata"]["uid"] == action.uid]
                        self.deleted += [(job, observation.status) for job in named]
                    answers += self._act(action)
                    yield
            except RefusedError as refusal:
                assert observation.refusal is None
                observation = replace(observation, refusal=str(refusal))
                continue
            except PassEndsError:
                return
            observation = observation.with_children(copied(answers))
            if starts:
                continue
            if decision.status is None:
                self.last_requeue = decision.requeue_after
                return
            if not self._write_status(resource, decision.status):
                return
            self.events += decision.events
            resource, old = copied(self.job), observation.status
            observation = observation.with_status(resource)
            if not may_continue(old, observation.status, decision):
                self.last_requeue = wait_for_next(old, observation.status, decision)
                return
        raise AssertionError("a pass comes to no end")

    def pass_until_written(self) -> None:
        """A pass that is cut off after it has written a status."""
        before = len(self.history)
        for _ in self.operator_pass():
            if len(self.history) > before:
                return

    def reconcile(self) -> None:
        """Passes until nothing more changes."""
        for _ in range(20):
            before = (self._versions, len(self.created))
            for _ in self.operator_pass():
                pass
            if before == (self._versions, len(self.created)):
                return
        raise AssertionError("the operator does not come to rest")

    def _act(self, action: Action) -> list[Object]:
        """Return what is created or replaced."""
        if isinstance(action, DeleteJob | DeleteConfigMap | DeleteFineTuneJob):
            self._delete(action)
            return []
        body = copied(action.body)
        kept = self.jobs if isinstance(action, CreateJob) else self.config_maps
        if isinstance(action, EnsureService):
            kept = self.services
        same = [x for x in kept if x["metadata"]["name"] == body["metadata"]["name"]]
        if isinstance(action, UpdateConfigMap):
            if not same or same[0]["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise PassEndsError
            kept.remove(same[0])
        elif same and isinstance(action, EnsureService):
            return []
        elif same:
            raise PassEndsError
        if self.refusal:
            raise RefusedError(self.refusal)
        body["metadata"]["resourceVersion"] = self._version()
        body["metadata"]["creationTimestamp"] = format_time(self.now)
        body["metadata"]["uid"] = f"uid-{self._versions}"
        kept.append(body)
        self.created.append(body)
        return [] if isinstance(action, EnsureService) else [body]

    def _delete(self, action: Deletion) -> None:
        kept = self.config_maps if isinstance(action, DeleteConfigMap) else self.jobs
        if isinstance(action, DeleteFineTuneJob):
            kept = [self.resource] if self.resource else []
        found = next((x for x in kept if x["metadata"]["name"] == action.name), None)
        if found is None:
            return
        if (found["metadata"]["uid"], found["metadata"]["resourceVersion"]) != (action.uid, action.resource_version):
            raise PassEndsError
        self._version()
        if isinstance(action, DeleteJob):
            self.delete_job(found, foreground=True)
        elif isinstance(action, DeleteFineTuneJob):
            assert self.finished(), "a job that is not over was deleted"
            self.delete()
        else:
            kept.remove(found)

    def _write_status(self, read: Object, status: Object) -> bool:
        version = self.resource["metadata"]["resourceVersion"] if self.resource else None
        if read["metadata"]["resourceVersion"] != version:
            return False
        changed = copied(self.job)
        # Progress has a field manager of its own.
        progress = {k: v for k, v in changed["status"].items() if k == "progress"}
        changed["status"] = copied(status) | progress
        changed["metadata"]["resourceVersion"] = self._version()
        self._store(changed)
        return True

    def rewrite_as_the_earlier_version(self) -> None:
        """Store the status without its records of planned deletions: that version has the reason in Ready alone."""
        changed = copied(self.job)
        for stage in changed["status"].get("stages", []):
            stage.pop("plannedDeletion", None)
        changed["metadata"]["resourceVersion"] = self._version()
        self._store(changed)

    # What tests ask for.

    @property
    def job(self) -> Object:
        assert self.resource is not None
        return self.resource

    @property
    def status(self) -> Object:
        found: Object = self.job["status"]
        return found

    def condition(self, kind: str) -> Object | None:
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), None)

    def stage(self, name: Stage) -> Object:
        found: Object = next(s for s in self.status["stages"] if s["name"] == name)
        return found

    @property
    def reason(self) -> Any:
        """Of Ready."""
        ready = self.condition("Ready")
        assert ready is not None
        return ready["reason"]

    def live_job(self) -> Object:
        job: Object
        (job,) = (j for j in self.jobs if is_live_job(j))
        return job

    def finished(self) -> bool:
        found = self.condition("Finished")
        return found is not None and found["status"] == "True"

    def run(self, code: int = 0, message: str | None = None, *, seconds: int = 60, **how: Any) -> None:
        """Let the live Job's one pod run to its end, and the operator see it. Without a message: a success."""
        job = self.live_job()
        pod = self.start_pod(job)
        self.run_pod(pod, **{k: how.pop(k) for k in ("node",) if k in how})
        self.reconcile()
        self.now += timedelta(seconds=seconds)
        stage = job["metadata"]["labels"]["finetune.dev/stage"]
        self.end_pod(pod, code, success(stage) if message is None and code == 0 else message or "", **how)
        self.settle()
        self.reconcile()

    def lose(self) -> None:
        """Let the live Job succeed and its pod be gone before the operator looks; the next attempt is there then."""
        job = self.live_job()
        pod = self.start_pod(job)
        self.run_pod(pod)
        self.reconcile()
        self.end_pod(pod, 0, success(job["metadata"]["labels"]["finetune.dev/stage"]))
        self.settle()
        self.pods.clear()
        self.reconcile()
        self.wait()

    def wait(self, seconds: float = 301) -> None:
        self.now += timedelta(seconds=seconds)
        self.reconcile()

    def pods_of(self, job: Object) -> list[Object]:
        return [p for p in self.pods if job_name(p) == job["metadata"]["name"]]

    def _version(self) -> str:
        self._versions += 1
        return str(self._versions)

    def _store(self, resource: Object) -> None:
        self.resource = resource
        self.history.append(copied(resource))

    def _job_of(self, pod: Object) -> Object | None:
        return next((j for j in self.jobs if pod in self.pods_of(j)), None)
