"""What holds whatever happens: random orders of events, crashes, lost writes and stale reads."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_api.plan import Defaults
from finetune_api.references import S3Connection
from finetune_api.spec import STAGES, Stage
from finetune_api.status import EvaluationStatus, FineTuneJobStatus, Verdict
from finetune_operator.clock import parse_time
from finetune_operator.decide.job_and_pod import condition, is_live_job, is_live_pod
from tests.unit.operator.world import INDEX, RUN_ID, Object, World, failure, job_name, spec, success

CODES = (1, 2, 64, 65, 66, 69, 72, 75, 77, 79, 80, 137, 139, 143)
FOUND_BEFORE: tuple[Object, ...] = ({}, {}, {"reused_from": f"team/other/{RUN_ID}"})
VERDICTS: tuple[Object, ...] = (
    {},
    *({"evaluation": EvaluationStatus(verdict=verdict)} for verdict in get_args(Verdict)),
)
PROFILE = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
_indices = st.integers(0, 63)
_nodes = st.sampled_from((1, 2))
BETTER = EvaluationStatus(verdict="Better")


def stage_of(child: Object) -> Stage:
    stage: Stage = child["metadata"]["labels"]["finetune.dev/stage"]
    return stage


def attempt_of(child: Object) -> int:
    return int(child["metadata"]["labels"]["finetune.dev/attempt"])


def reports(job: Object) -> bool:
    return "--report" in job["spec"]["template"]["spec"]["containers"][0]["args"]


class Cluster(RuleBasedStateMachine):
    """A user, a cluster and an operator that all do as they please."""

    stale_reads = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            spec(evaluation={"gate": {"onMiss": "Fail"}}, startDeadlineSeconds=700, activeDeadlineSeconds=5000)
        )
        self.operator: Iterator[None] = iter(())
        self.seen: Object | None = None
        # By uid and retryGeneration: how many children it had when it was finished.
        self.children_at_end: dict[tuple[str, int], int] = {}
        # How many of what was created were looked at for a second training.
        self.looked_at = 0
        # Jobs that found no result, or had an image that cannot look for one.
        self.no_result: set[str] = set()
        # How many deletions, and statuses, were looked at.
        self.deletions = 0
        self.statuses = 0
        # The most that it ever asked for.
        self.nodes = 1

    @initialize(queued=st.booleans(), nodes=_nodes, ahead=st.sampled_from((0, 8)))
    def jobs_may_queue(self, queued: bool, nodes: int, ahead: int) -> None:
        scheduling = {"scheduling": {"kueue": {"queueName": "gpu"}}} if queued else {}
        self.world = World(spec(evaluation={"gate": {"onMiss": "Fail"}}, compute={"nodes": nodes}, **scheduling))
        self.nodes = nodes
        self.all_goes_well(ahead)

    # The operator.

    @rule()
    def operator_acts(self) -> None:
        if next(self.operator, True):
            self.operator = self.world.operator_pass()

    @rule(steps=st.integers(1, 4))
    def operator_passes(self, steps: int) -> None:
        for _ in range(steps):
            for _ in self.operator:
                pass
            self.operator = self.world.operator_pass()

    @rule()
    def operator_dies(self) -> None:
        self.operator = iter(())

    @precondition(lambda self: self.stale_reads)
    @rule(back=st.integers(1, 6))
    def operator_reads_an_old_object(self, back: int) -> None:
        old = self.world.history[-min(back, len(self.world.history))]
        for _ in self.world.operator_pass(old):
            pass
        self.operator = iter(())

    @rule(number=st.integers(1, 3))
    def operator_is_upgraded(self, number: int) -> None:
        changed = replace(self.world.settings, trainer_image=f"trainer:{number}", ca_pem=f"CA {number}")
        if number == 3:
            changed = replace(changed, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))
        self.world.settings = changed
        self.operator = iter(())

    @rule()
    def operator_of_the_earlier_version_writes_the_status(self) -> None:
        """It keeps the reason of a planned deletion in a condition alone."""
        if self.world.resource is None:
            return
        for stage in self.world.status.get("stages", []):
            if stage.get("plannedDeletion", {}).get("reason") == self.world.reason:
                self.world.rewrite_as_the_earlier_version()
                self.operator = iter(())

    # The cluster.

    @rule()
    def controllers_act(self) -> None:
        self.world.settle()

    @rule(seconds=st.sampled_from((1, 30, 400)))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def pod_moves_on(self) -> None:
        """Whatever is due first: a Job gets its quota, then its pod, the pod runs, the pod succeeds."""
        for job in self.world.jobs:
            if is_live_job(job) and job["spec"].get("suspend") and not job["metadata"].get("deletionTimestamp"):
                self.world.admit(job)
                return
            if self.world.lacking(job):
                self.world.start_pod(job)
                return
        live = list(filter(is_live_pod, self.world.pods))
        for pod in live:
            if pod["status"]["phase"] == "Pending":
                self.world.run_pod(pod)
                return
        for pod in live:
            found = {} if pod["metadata"]["labels"].get(INDEX, "0") != "0" else {"evaluation": BETTER}
            self.world.end_pod(pod, 0, success(stage_of(pod), **found))
            return

    @rule(rounds=st.integers(1, 14))
    def all_goes_well(self, rounds: int) -> None:
        """Without this few runs would get far: most of what can happen sets a job back."""
        for _ in range(rounds):
            self.operator_passes(2)
            self.pod_moves_on()
            self.world.settle()
            self.world.now += timedelta(seconds=100)
            self.at_most_one_run_is_live()
            self.status_never_goes_back()

    @rule(data=st.data())
    def pod_ends(self, data: st.DataObject) -> None:
        pods = [p for p in self.world.pods if p["status"]["phase"] == "Running"]
        if not pods:
            return
        pod = pods[data.draw(_indices) % len(pods)]
        stage = stage_of(pod)
        code = data.draw(st.sampled_from((0, *CODES)))
        if code in (2, 72):
            self.no_result.add(job_name(pod))
        step = data.draw(st.integers(0, 9))
        found = {"prepare": FOUND_BEFORE, "train": VERDICTS}.get(stage, ({},))
        reported = (
            success(stage, **data.draw(st.sampled_from(found)))
            if code == 0
            else failure(stage, code, "What happened.", checkpoint_step=step)
        )
        message = data.draw(st.sampled_from((reported, "", "no JSON")))
        reason = data.draw(st.sampled_from(("", "OOMKilled"))) if code else ""
        disrupted = bool(code) and data.draw(st.booleans())
        self.world.end_pod(pod, code, message, reason, disrupted=disrupted)

    @rule()
    def no_node_takes_the_pod(self) -> None:
        why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "No."}
        for pod in self.world.pods:
            if pod["status"]["phase"] == "Pending":
                pod["status"]["conditions"] = [why]

    @rule(index=_indices)
    def pod_is_deleted(self, index: int) -> None:
        if self.world.pods:
            self.world.delete_pod(self.world.pods[index % len(self.world.pods)])

    @rule()
    def job_controller_misses_a_creation(self) -> None:
        for job in filter(is_live_job, self.world.jobs):
            self.world.blind(job)

    @rule()
    def queue_holds_a_job(self) -> None:
        for job in filter(is_live_job, self.world.jobs):
            if not job["metadata"].get("deletionTimestamp"):
                self.world.hold(job)

    @rule()
    def queue_admits_a_job(self) -> None:
        for job in self.world.jobs:
            if job["spec"].get("suspend") and not any(map(is_live_pod, self.world.pods)):
                self.world.admit(job)

    # The user.

    @rule(index=_indices, foreground=st.booleans())
    def job_is_deleted(self, index: int, foreground: bool) -> None:
        if self.world.jobs:
            self.world.delete_job(self.world.jobs[index % len(self.world.jobs)], foreground=foreground)

    @rule(index=_indices)
    def config_map_is_deleted(self, index: int) -> None:
        if self.world.config_maps:
            self.world.config_maps.pop(index % len(self.world.config_maps))

    @precondition(lambda self: self.world.resource is not None)
    @rule(group=st.integers(0, 9), nodes=_nodes)
    def user_edits(self, group: int, nodes: int) -> None:
        self.world.edit(fsGroup=group, nodes=nodes)
        self.nodes = max(self.nodes, nodes)

    @precondition(lambda self: self.world.resource is not None)
    @rule()
    def user_raises_the_retry_generation(self) -> None:
        self.world.patch(retryGeneration=self.world.job["spec"].get("retryGeneration", 0) + 1)

    @precondition(lambda self: self.world.resource is not None)
    @rule(number=st.integers(1, 3), late=st.sampled_from((False, False, True)))
    def user_corrects(self, number: int, late: bool) -> None:
        """As the CRD lets them; the status that it sees may be older than what runs, as with `late`."""
        if "snapshot" not in self.world.status or self.world.status.get("specEditable") or late:
            self.world.patch(model={"huggingFace": {"repository": f"org/model-{number}"}})

    @precondition(lambda self: self.world.resource is not None)
    @rule(seconds=st.sampled_from((0, 100, None)), what=st.sampled_from(("Children", "Children", "FineTuneJob")))
    def user_sets_the_time_to_keep_it(self, seconds: int | None, what: str) -> None:
        self.world.patch(ttlSecondsAfterFinished=seconds, ttlTarget=what)

    @precondition(lambda self: self.world.resource is not None)
    @rule(suspend=st.booleans())
    def user_suspends_or_resumes(self, suspend: bool) -> None:
        self.world.patch(suspend=suspend)

    @precondition(lambda self: self.world.resource is not None)
    @rule(decided=st.sampled_from((False, False, False, True)))
    def user_deletes(self, decided: bool) -> None:
        if decided:
            self.world.delete()

    @precondition(lambda self: self.world.resource is None)
    @rule()
    def user_creates(self) -> None:
        self.world.create()

    # What holds.

    @invariant()
    def at_most_one_run_is_live(self) -> None:
        world = self.world
        running = {j["metadata"]["name"] for j in world.jobs if is_live_job(j)}
        running |= {job_name(p) for p in world.pods if is_live_pod(p)}
        assert len(running) <= 1, running

    @invariant()
    def nothing_is_trained_twice(self) -> None:
        """Once a train Job is Complete, only its result is read, until that says that there is none."""
        new, self.looked_at = self.world.created[self.looked_at :], len(self.world.created)
        for job in new:
            if job["kind"] != "Job" or stage_of(job) != "train" or reports(job):
                continue
            owner = job["metadata"]["ownerReferences"]
            earlier = [j for j in self.world.jobs if j is not job and stage_of(j) == "train"]
            earlier = [j for j in earlier if j["metadata"]["ownerReferences"] == owner]
            complete = [attempt_of(j) for j in earlier if condition(j, "Complete")]
            empty = [attempt_of(j) for j in earlier if j["metadata"]["name"] in self.no_result]
            assert not complete or max(empty, default=-1) > max(complete), job["metadata"]["name"]

    @invariant()
    def no_job_is_deleted_before_the_status_says_why(self) -> None:
        new, self.deletions = self.world.deleted[self.deletions :], len(self.world.deleted)
        for job, status in new:
            assert explains(status, job), (job["metadata"]["name"], status)

    @invariant()
    def no_gpu_time_is_counted_twice(self) -> None:
        """At most one run is live, so that it is never longer than the job is old."""
        world = self.world
        if world.resource is not None:
            age = world.now - parse_time(world.job["metadata"]["creationTimestamp"])
            assert world.status.get("gpuSeconds", 0) <= age.total_seconds() * self.nodes

    @invariant()
    def status_never_goes_back(self) -> None:
        new, old = self.world.resource, self.seen
        self.seen = new
        if new is None or old is None or new["metadata"]["uid"] != old["metadata"]["uid"]:
            return
        assert_no_step_back(old["status"], new["status"])

    def suspending_leaves_no_pod(self) -> None:
        """With a fair world: pods that are asked to end do so."""
        world = self.world
        world.patch(suspend=True)
        for _ in range(8):
            self.operator_passes(2)
            for pod in filter(is_live_pod, world.pods):
                if pod["metadata"].get("deletionTimestamp"):
                    world.end_pod(pod, 75)
            world.settle()
            world.now += timedelta(seconds=30)
        live = [x["metadata"]["name"] for x in (*filter(is_live_job, world.jobs), *filter(is_live_pod, world.pods))]
        assert live == []
        assert world.finished() or world.status["phase"] == "Suspended"

    def teardown(self) -> None:
        """With a fair world a suspended job leaves no pod, and every other job ends."""
        world = self.world
        for _ in self.operator:
            pass
        if world.resource is None:
            world.create()
        world.patch(ttlSecondsAfterFinished=None)
        self.suspending_leaves_no_pod()
        world.patch(suspend=False)
        for _ in range(50):
            if world.finished():
                break
            self.all_goes_well(4)
        assert world.finished(), world.status


class FreshReads(Cluster):
    """As the operator reads: the FineTuneJob first, its children after it, from the API server."""

    @invariant()
    def a_finished_job_gets_no_children(self) -> None:
        world = self.world
        if world.resource is None or not world.finished():
            return
        uid = world.job["metadata"]["uid"]
        count = sum(c["metadata"]["ownerReferences"][0]["uid"] == uid for c in world.created)
        assert self.children_at_end.setdefault((uid, world.status["retryGeneration"]), count) == count

    @invariant()
    def no_planned_deletion_is_taken_for_that_of_somebody_else(self) -> None:
        world = self.world
        deleted = {
            (job["metadata"]["ownerReferences"][0]["uid"], stage_of(job), attempt_of(job)) for job, _ in world.deleted
        }
        new, self.statuses = world.history[max(self.statuses - 1, 0) :], len(world.history)
        for before, after in pairwise(new):
            if before["metadata"]["uid"] != after["metadata"]["uid"]:
                continue
            for old, stage in zip(before["status"].get("stages", []), after["status"].get("stages", []), strict=False):
                attempt = (before["metadata"]["uid"], old["name"], old["attempt"])
                if stage["attempt"] > old["attempt"] and attempt in deleted:
                    failure = stage.get("lastFailure", {})
                    assert failure == old.get("lastFailure", {}) or failure.get("reason") != "JobDeleted"

    @invariant()
    def nothing_is_trained_that_is_there_already(self) -> None:
        world = self.world
        if world.resource is None or "reusedFrom" not in world.status:
            return
        uid = world.job["metadata"]["uid"]
        own = [c for c in world.created if c["kind"] == "Job" and c["metadata"]["ownerReferences"][0]["uid"] == uid]
        assert {stage_of(job) for job in own} == {"prepare"}

    @invariant()
    def nothing_is_exported_that_missed_the_gate(self) -> None:
        world = self.world
        if world.resource is None or world.status.get("failure", {}).get("reason") != "GateMissed":
            return
        uid = world.job["metadata"]["uid"]
        own = [c for c in world.created if c["kind"] == "Job" and c["metadata"]["ownerReferences"][0]["uid"] == uid]
        assert "export" not in {stage_of(job) for job in own}

    @invariant()
    def what_runs_is_what_was_accepted(self) -> None:
        world = self.world
        if world.resource is None or "snapshot" not in world.status:
            return
        for job in filter(is_live_job, world.jobs):
            if job["metadata"]["ownerReferences"][0]["uid"] == world.job["metadata"]["uid"]:
                container = job["spec"]["template"]["spec"]["containers"][0]
                assert container["image"] == world.status["snapshot"]["trainerImage"]
                assert world.status["snapshot"]["planSha256"] in container["args"]

    @invariant()
    def nothing_of_a_finished_job_runs_on(self) -> None:
        world = self.world
        if world.resource is None or not world.finished():
            return
        for job in filter(is_live_job, world.jobs):
            if job["metadata"]["ownerReferences"][0]["uid"] == world.job["metadata"]["uid"]:
                assert job["metadata"]["deletionTimestamp"]


class StaleReads(Cluster):
    """Even an old FineTuneJob does no harm, as long as the children are listed after it was read."""

    stale_reads = True


def explains(status: FineTuneJobStatus, job: Object) -> bool:
    """Whether the status says why the operator deletes this Job."""
    if _finished(status.to_json()):
        return True
    (stage,) = (s for s in status.stages if s.name == stage_of(job))
    if stage.state == "Failed" or attempt_of(job) < stage.attempt:
        return True
    record = stage.planned_deletion
    return stage.state == "Running" and record is not None and record.job_uid == job["metadata"]["uid"]


def assert_no_step_back(old: Object, new: Object) -> None:
    assert new["observedGeneration"] >= old["observedGeneration"]
    assert new.get("retryGeneration", 0) >= old.get("retryGeneration", 0)
    reopened = _failed(old) and new["retryGeneration"] > old["retryGeneration"]
    accepted_again = "snapshot" in old and new["snapshot"] != old["snapshot"]
    if accepted_again:
        assert old.get("specEditable")
        assert not _failed(old) or reopened
    assert _place(new) >= _place(old) or (accepted_again and reopened)
    for before, after in zip(old.get("stages", []), new.get("stages", []), strict=False):
        assert after["attempt"] >= before["attempt"]
        assert after["countedFailures"] >= before["countedFailures"] or reopened or accepted_again
        assert after["countedFailures"] <= 4
    for member in ("activeSeconds", "gpuSeconds"):
        assert new.get(member, 0) >= old.get(member, 0)
    for member in ("startTime", "runId", "failure", "completionTime"):
        if member in old and "stages" in old and member != "startTime":
            assert reopened or new[member] == old[member]
    if _finished(old):
        assert _finished(new) == _finished(old) or reopened


def _place(status: Object) -> tuple[int, ...]:
    """The stage, its attempt, and how far that is."""
    stages: list[dict[str, Any]] = status.get("stages", [])
    for index, stage in enumerate(stages):
        if stage["state"] not in ("Succeeded", "Skipped"):
            return index, stage["attempt"], ("Pending", "Running", "Failed").index(stage["state"])
    return (len(STAGES) if stages else -1,)


def _failed(status: Object) -> bool:
    return any(c["type"] == "Failed" and c["status"] == "True" for c in status.get("conditions", []))


def _finished(status: Object) -> str | None:
    """The reason for which a job is over."""
    conditions = status.get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Finished" and c["status"] == "True"), None)


TestFreshReads = FreshReads.TestCase
TestFreshReads.settings = PROFILE
TestStaleReads = StaleReads.TestCase
TestStaleReads.settings = PROFILE
