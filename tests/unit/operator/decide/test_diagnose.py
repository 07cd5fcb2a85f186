"""Why a pod does not run, in the words that kubelets and API servers use."""

from typing import Any

import pytest

from finetune_api.job import ObjectMeta
from finetune_api.status import FineTuneJobStatus
from finetune_operator.decide.diagnose import creation_refused, diagnose, needs_events
from finetune_operator.decide.observation import Observation

Object = dict[str, Any]
VOLUMES = [
    {"name": "volume-5", "secret": {"secretName": "hf"}},
    {"name": "volume-6", "configMap": {"name": "rows"}},
    {"name": "volume-7", "persistentVolumeClaim": {"claimName": "models"}},
]


def pod(waiting: tuple[str, str] | None = None, unschedulable: str = "") -> Object:
    status: Object = {"phase": "Pending"}
    if waiting:
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
        status["containerStatuses"] = [{"name": "trainer", "state": state}]
    if unschedulable:
        message = {"reason": "Unschedulable", "message": unschedulable}
        status["conditions"] = [{"type": "PodScheduled", "status": "False", **message}]
    container = {"name": "trainer", "image": "reg/trainer:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    return {"metadata": {"uid": "p"}, "spec": {"containers": [container], "volumes": VOLUMES}, "status": status}


def event(reason: str, message: str, second: int = 1, *, uid: str = "p", kind: str = "Warning") -> Object:
    time = f"2026-01-01T00:00:{second:02}Z"
    return {"involvedObject": {"uid": uid}, "type": kind, "reason": reason, "message": message, "lastTimestamp": time}


JOB = {"metadata": {"uid": "j"}, "status": {}}


@pytest.mark.parametrize(("node", "asked"), [("node-1", ["p"]), (None, [])])
def test_only_a_pod_that_has_a_node_is_explained_by_events(node: str | None, asked: list[str]) -> None:
    pending = pod()
    pending["spec"]["nodeName"] = node
    metadata = ObjectMeta(name="coach", namespace="team", uid="u", generation=1)
    seen = Observation(metadata, None, None, FineTuneJobStatus(observed_generation=1), pods=(pending,))
    assert [child["metadata"]["uid"] for child in needs_events(seen)] == asked


def test_a_job_without_its_pod_is_explained_by_events() -> None:
    metadata = ObjectMeta(name="coach", namespace="team", uid="u", generation=1)
    seen = Observation(metadata, None, None, FineTuneJobStatus(observed_generation=1), jobs=(JOB,))
    assert needs_events(seen) == (JOB,)


@pytest.mark.parametrize(
    ("waiting", "reason", "named"),
    [
        (("CreateContainerConfigError", 'secret "s3" not found'), "SecretNotFound", "s3"),
        (("CreateContainerConfigError", 'configmap "env" not found'), "ConfigMapNotFound", "env"),
        (("CreateContainerConfigError", "image will run as root"), "PodRefused", "image will run as root"),
        (("ImagePullBackOff", "Back-off pulling image"), "ImagePullFailed", "reg/trainer:1"),
        (("ErrImagePull", "not found"), "ImagePullFailed", "reg/trainer:1"),
    ],
)
def test_a_container_that_waits(waiting: tuple[str, str], reason: str, named: str) -> None:
    found = diagnose([pod(waiting)], [], [])
    assert found is not None
    assert found.reason == reason
    assert named in found.message


@pytest.mark.parametrize(
    ("message", "reason", "named"),
    [
        ('MountVolume.SetUp failed for volume "volume-5" : secret "hf" not found', "SecretNotFound", "hf"),
        ('MountVolume.SetUp failed for volume "volume-6" : configmap "rows" not found', "ConfigMapNotFound", "rows"),
        (
            'MountVolume.SetUp failed for volume "volume-5" : references non-existent secret key: token',
            "SecretNotFound",
            "hf has no key token",
        ),
        (
            'MountVolume.SetUp failed for volume "volume-6" : references non-existent config key: train.jsonl',
            "ConfigMapNotFound",
            "rows has no key train.jsonl",
        ),
        ('MountVolume.SetUp failed for volume "volume-7" : timed out', "VolumeNotMountable", "models"),
    ],
)
def test_a_volume_that_cannot_be_mounted(message: str, reason: str, named: str) -> None:
    found = diagnose([pod()], [], [event("FailedMount", message)])
    assert found is not None
    assert found.reason == reason
    assert named in found.message


def test_a_vague_newest_complaint_does_not_hide_the_cause() -> None:
    cause = event("FailedMount", 'MountVolume.SetUp failed for volume "volume-5" : secret "hf" not found', 1)
    vague = event("FailedMount", "Unable to attach or mount volumes: unmounted volumes=[volume-5]", 9)
    found = diagnose([pod()], [], [cause, vague])
    assert found is not None
    assert found.reason == "SecretNotFound"


def test_a_complaint_that_is_settled_is_not_reported() -> None:
    settled = event("FailedMount", 'secret "hf" not found', 1)
    assert diagnose([pod()], [], [settled, event("Pulling", "Pulling image", 2, kind="Normal")]) is None


def test_a_complaint_of_the_same_second_is_reported() -> None:
    scheduled = event("Scheduled", "Assigned", 1, kind="Normal") | {"eventTime": "2026-01-01T00:00:01.900000Z"}
    del scheduled["lastTimestamp"]
    found = diagnose([pod()], [], [scheduled, event("FailedMount", 'secret "hf" not found', 1)])
    assert found is not None
    assert found.reason == "SecretNotFound"


@pytest.mark.parametrize(
    ("message", "reason", "named"),
    [
        (
            "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            "Unschedulable",
            "No node has a free nvidia.com/gpu",
        ),
        ("0/3 nodes are available: 3 Insufficient memory.", "Unschedulable", "Insufficient memory"),
        (
            "0/3 nodes are available: 3 Insufficient ephemeral-storage.",
            "Unschedulable",
            "No node has the free disk that the pod requests (see status.scratch)",
        ),
        (
            "0/3 nodes are available: 1 Insufficient ephemeral-storage, 2 Insufficient nvidia.com/gpu.",
            "Unschedulable",
            "No node has the free disk that the pod requests and a free nvidia.com/gpu",
        ),
        ('0/1 nodes: persistentvolumeclaim "models" not found.', "VolumeNotMountable", "models does not exist"),
        ("0/1 nodes: pod has unbound immediate PersistentVolumeClaims.", "VolumeNotMountable", "is not bound"),
    ],
)
def test_a_pod_that_no_node_takes(message: str, reason: str, named: str) -> None:
    found = diagnose([pod(unschedulable=message)], [], [])
    assert found is not None
    assert found.reason == reason
    assert named in found.message


def test_a_pod_that_no_node_takes_has_what_it_requests_beside_the_words_of_the_scheduler() -> None:
    words = "0/3 nodes are available: 3 Insufficient memory."
    waiting = pod(unschedulable=words)
    waiting["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "2", "memory": "8Gi"}
    waiting["spec"]["nodeSelector"] = {"gpu": "h100"}
    found = diagnose([waiting], [], [])
    assert found is not None
    assert found.message == (
        f"No node can take the pod: {words} The pod requests nvidia.com/gpu 1, cpu 2, memory 8Gi on a node with "
        "gpu=h100; spec.compute changes that."
    )


@pytest.mark.parametrize(
    "message",
    [
        'pods "x" is forbidden: maximum memory usage per Container is 4Gi, but request is 8Gi',
        'pods "x" is forbidden: [minimum cpu usage per Pod is 4, but request is 2, and more]',
        'pods "x" is forbidden: memory max limit to request ratio per Container is 2, but provided ratio is 4.000000',
        'pods "x" is forbidden: maximum cpu usage per Container is 1. No limit is specified',
        'Pod "x" is invalid: spec.containers[0].resources.requests: Invalid value: "8Gi": must be less than or equal '
        "to memory limit of 4Gi",
    ],
)
def test_a_limit_range_is_named_with_what_to_change(message: str) -> None:
    found = creation_refused(message)
    assert found.reason == "PodRefused"
    assert found.message.startswith("A LimitRange of the namespace does not allow the pod; ")
    assert "spec.compute.resources" in found.message
    assert message in found.message


def test_a_job_whose_own_limit_is_below_its_request_is_not_blamed_on_a_limit_range() -> None:
    message = (
        'Job.batch "x" is invalid: spec.template.spec.containers[0].resources.requests: Invalid value: "8Gi": must be '
        "less than or equal to memory limit of 4Gi"
    )
    assert "LimitRange" not in creation_refused(message, "Job").message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1', "QuotaExceeded"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "PodRefused"),
    ],
)
def test_a_pod_that_was_never_created(message: str, reason: str) -> None:
    found = diagnose([], [JOB], [event("FailedCreate", message, uid="j")])
    assert found is not None
    assert found.reason == reason


def test_a_pod_that_just_starts_is_fine() -> None:
    assert diagnose([pod(("ContainerCreating", ""))], [JOB], []) is None


def test_a_running_pod_is_not_questioned() -> None:
    running = pod(("CreateContainerConfigError", "old")) | {"status": {"phase": "Running"}}
    assert diagnose([running], [], []) is None


def test_a_message_of_any_length_fits_the_status() -> None:
    assert len(creation_refused("x" * 100_000).message) < 2000


@pytest.mark.parametrize(
    ("scheduler", "conditions", "named"),
    [
        ("volcano", [], "volcano"),
        ("volcano", [{"type": "PodScheduled", "status": "True"}], None),
        ("default-scheduler", [], None),
    ],
)
def test_a_scheduler_that_nobody_runs(scheduler: str, conditions: list[Object], named: str | None) -> None:
    waiting = pod()
    waiting["spec"]["schedulerName"] = scheduler
    waiting["status"]["conditions"] = conditions
    found = diagnose([waiting], [], [])
    assert found and named in found.message if named else found is None, found
