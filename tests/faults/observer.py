"""Watches FineTuneJobs and pods directly, past the proxies, and notes what must never be seen."""

import asyncio
from dataclasses import dataclass, field

from tests.faults import judge
from tests.faults.api import Api, Object, everywhere

_CHILDREN = "app.kubernetes.io/managed-by=finetune-operator"


@dataclass
class Observer:
    """What was seen. `problems` are (kind, uid, sentence), kinds as the judge counts them."""

    api: Api
    # The newest of each FineTuneJob, by uid, deleted ones too.
    jobs: dict[str, Object] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    # Those that a user has opened again: they continue after their end.
    reopened: set[str] = field(default_factory=set)
    problems: list[judge.Problem] = field(default_factory=list)
    # The live train pods of each namespace/name by their uid: their Job, and their index in it.
    _live: dict[tuple[str, str], dict[str, tuple[str, str]]] = field(default_factory=dict)
    _pods: set[str] = field(default_factory=set)

    async def work(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.api.follow(everywhere("finetunejobs"), "", self._jobs_listed, self._job_changed))
            group.create_task(self.api.follow("/api/v1/pods", _CHILDREN, self._pods_listed, self.pod_changed))

    def _jobs_listed(self, jobs: list[Object]) -> None:
        there = {job["metadata"]["uid"] for job in jobs}
        self.gone |= self.jobs.keys() - there
        for job in jobs:
            self._job_changed("ADDED", job)

    def _job_changed(self, kind: str, job: Object) -> None:
        uid = job["metadata"]["uid"]
        if kind == "DELETED":
            self.gone.add(uid)
            return
        old = self.jobs.get(uid)
        self.jobs[uid] = job
        if old is not None:
            for sentence in judge.changed_wrongly(old, job):
                self._note("wrong", uid, sentence)

    def _pods_listed(self, pods: list[Object]) -> None:
        self._live.clear()
        for pod in pods:
            self.pod_changed("ADDED", pod)

    def pod_changed(self, kind: str, pod: Object) -> None:
        metadata, labels = pod["metadata"], pod["metadata"]["labels"]
        owner = labels["finetune.dev/job-uid"]
        if kind == "ADDED" and metadata["uid"] not in self._pods:
            self._pods.add(metadata["uid"])
            if owner not in self.reopened:
                for sentence in judge.started_wrongly(self.jobs.get(owner), pod):
                    self._note("wrong", owner, sentence)
        if labels["finetune.dev/stage"] != "train":
            return
        live = self._live.setdefault((metadata["namespace"], labels["finetune.dev/job"]), {})
        if kind == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed"):
            live.pop(metadata["uid"], None)
        elif metadata["uid"] not in live:
            place = (labels["batch.kubernetes.io/job-name"], labels.get("batch.kubernetes.io/job-completion-index", ""))
            if doubled := judge.doubled(place, list(live.values())):
                self._note("doubled", owner, doubled)
            live[metadata["uid"]] = place

    def _note(self, kind: judge.Wrong, uid: str, sentence: str) -> None:
        self.problems.append(judge.Problem(kind, uid, sentence))

    def is_finished(self, uid: str) -> bool:
        """Whether a FineTuneJob has come to its end, and is not asked to continue, or is gone."""
        return uid in self.gone or (uid in self.jobs and judge.is_settled(self.jobs[uid]))

    def has_failed(self, uid: str) -> bool:
        """Whether a FineTuneJob is there and has come to a bad end."""
        return uid not in self.gone and uid in self.jobs and judge.has_failed(self.jobs[uid])
