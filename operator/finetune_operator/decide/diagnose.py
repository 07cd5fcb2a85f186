"""Why a pod does not start, in the user's terms."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from finetune_operator.clock import parse_time
from finetune_operator.decide import job_and_pod
from finetune_operator.decide.observation import Object, Observation

Reason = Literal[
    "SecretNotFound",
    "ConfigMapNotFound",
    "VolumeNotMountable",
    "ImagePullFailed",
    "Unschedulable",
    "QuotaExceeded",
    "PodRefused",
]
_MAXIMUM_QUOTE = 1000
# A Job has up to 16 pods, and each costs a list of its events in every pass.
_PODS_WITH_EVENTS = 2
_DEFAULT_SCHEDULER = "default-scheduler"

# Messages of the kubelet and the API server; the groups are the name of the object, or of the key in it.
_SECRET = re.compile(r'secrets? "([^"]+)" not found')
_CONFIG_MAP = re.compile(r'configmaps? "([^"]+)" not found')
_MISSING_KEY = re.compile(r"references non-existent (?:secret|config) key: (\S+)")
_VOLUME = re.compile(r'for volume "([^"]+)"')
_CLAIM = re.compile(
    r'persistentvolumeclaim "([^"]+)" not found|unbound immediate PersistentVolumeClaims', re.IGNORECASE
)
# LimitRanger's words: plugin/pkg/admission/limitranger/admission.go.
_LIMIT_RANGE = re.compile(r"(?:maximum|minimum) \S+ usage per (?:Container|Pod) is|max limit to request ratio per")
# Only of a pod: with its own limits its Job would have been refused, so a LimitRange has added this one.
_ADDED_LIMIT = re.compile(r"(?<!template\.)spec\.containers\[\d+\]\.resources\.requests: .* must be less than or equal")
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_MOUNT_REASONS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
_REFUSED_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Diagnosis:
    """Why a pod does not start, and what to change where that is known."""

    reason: Reason
    message: str


def needs_events(observation: Observation) -> tuple[Object, ...]:
    """Return the pods and Jobs whose Events say why no pod starts; list the Events by `involvedObject.uid`.

    For each list the API server reads all Events of the namespace. A pod without a node needs none: its condition
    PodScheduled says why.
    """
    pending = [p for p in observation.pods if _is_pending(p) and (p.get("spec") or {}).get("nodeName")]
    # A pod that never starts is among the first once the others run.
    pending.sort(key=job_and_pod.index)
    return tuple(pending[:_PODS_WITH_EVENTS] + [j for j in observation.jobs if _lacks_pods(j, observation.pods)])


def _is_pending(pod: Object) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Pending")


def _lacks_pods(job: Object, pods: Sequence[Object]) -> bool:
    own = [p for p in pods if job_and_pod.is_pod_of_job(p, job)]
    return job_and_pod.is_live_job(job) and len(job_and_pod.newest(own)) < job_and_pod.completions(job)


# Why a pod waits for an object that the spec names.
NAMED_BY_SPEC = ("SecretNotFound", "ConfigMapNotFound", "VolumeNotMountable")


def diagnose(pods: Sequence[Object], jobs: Sequence[Object], events: Sequence[Object]) -> Diagnosis | None:
    """Return why a pod of a job does not start, or None if nothing is known to be wrong.

    Args:
        pods: of the present attempt.
        jobs: of the present attempt.
        events: of those, in any order.
    """
    for pod in filter(_is_pending, pods):
        own = _newest_first(pod, events)
        found = next((d for look in _POD_CHECKS if (d := look(pod, own))), None)
        if found:
            return found
    for job in jobs:
        own = _newest_first(job, events)
        if own and own[0].get("reason") == "FailedCreate" and job_and_pod.is_live_job(job):
            return creation_refused(str(own[0].get("message", "")))
    return None


def creation_refused(message: str, what: Literal["Job", "pod"] = "pod") -> Diagnosis:
    """Return why the API server did not create an object, from its own words."""
    if "exceeded quota" in message:
        text = f"The namespace's quota does not allow the {what}: {_quote(message)}"
        return Diagnosis("QuotaExceeded", text)
    if found := _missing(message):
        return found
    if _LIMIT_RANGE.search(message) or _ADDED_LIMIT.search(message):
        text = (
            f"A LimitRange of the namespace does not allow the {what}; set requests and limits that it allows in "
            f"spec.compute.resources, or ask your administrator: {_quote(message)}"
        )
        return Diagnosis("PodRefused", text)
    return Diagnosis("PodRefused", f"The cluster refused to create the {what}: {_quote(message)}")


def _image(pod: Object, _: Sequence[Object]) -> Diagnosis | None:
    waiting = _waiting(pod)
    if waiting.get("reason") not in _IMAGE_REASONS:
        return None
    image = pod["spec"]["containers"][0]["image"]
    text = (
        f"The image {image} cannot be pulled; check its name, the registry and spec.compute.imagePullSecrets: "
        f"{_quote(str(waiting.get('message') or waiting['reason']))}"
    )
    return Diagnosis("ImagePullFailed", text)


def _config(pod: Object, _: Sequence[Object]) -> Diagnosis | None:
    waiting = _waiting(pod)
    if waiting.get("reason") not in _REFUSED_REASONS:
        return None
    message = str(waiting.get("message") or waiting["reason"])
    return _missing(message) or Diagnosis("PodRefused", f"The node refused to start the pod: {_quote(message)}")


def _mount(pod: Object, events: Sequence[Object]) -> Diagnosis | None:
    if not events or events[0].get("reason") not in _MOUNT_REASONS:
        return None
    # The newest may only report that the kubelet timed out; an older one names the object.
    messages = [str(e.get("message", "")) for e in events if e.get("reason") in _MOUNT_REASONS]
    found = next((d for m in messages if (d := _missing(m) or _missing_key(pod, m))), None)
    if found:
        return found
    claim = (_volume(pod, messages[0]).get("persistentVolumeClaim") or {}).get("claimName")
    what = f"The PersistentVolumeClaim {claim}" if claim else "A volume"
    return Diagnosis("VolumeNotMountable", f"{what} cannot be mounted: {_quote(messages[0])}")


def _missing_key(pod: Object, message: str) -> Diagnosis | None:
    key = _MISSING_KEY.search(message)
    if not key:
        return None
    volume = _volume(pod, message)
    secret = (volume.get("secret") or {}).get("secretName")
    if secret:
        return Diagnosis("SecretNotFound", f"The Secret {secret} has no key {key.group(1)}; add it.")
    config_map = (volume.get("configMap") or {}).get("name")
    return Diagnosis("ConfigMapNotFound", f"The ConfigMap {config_map} has no key {key.group(1)}; add it.")


def _scheduling(pod: Object, _: Sequence[Object]) -> Diagnosis | None:
    conditions = (pod.get("status") or {}).get("conditions") or []
    scheduled: Object = next((c for c in conditions if c["type"] == "PodScheduled"), {})
    scheduler = pod["spec"].get("schedulerName") or _DEFAULT_SCHEDULER
    if not scheduled and scheduler != _DEFAULT_SCHEDULER and not pod["spec"].get("nodeName"):
        text = (
            f"The scheduler {scheduler} has not handled the pod yet. "
            "If this cluster has no such scheduler, correct spec.scheduling.schedulerName."
        )
        return Diagnosis("Unschedulable", text)
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    message = str(scheduled.get("message", ""))
    if claim := _CLAIM.search(message):
        what = (
            f"The PersistentVolumeClaim {claim.group(1)} does not exist; create it"
            if claim.group(1)
            else ("A PersistentVolumeClaim is not bound to a volume")
        )
        return Diagnosis("VolumeNotMountable", f"{what}: {_quote(message)}")
    lacking = [r for r in _devices(pod) if f"Insufficient {r}" in message]
    if "Insufficient ephemeral-storage" in message:
        device = f" and a free {lacking[0]}" if lacking else ""
        text = (
            f"No node has the free disk that the pod requests{device} (see status.scratch). Use nodes with more disk, "
            "a smaller model, or a model on a PersistentVolumeClaim, which is not copied"
        )
    elif lacking:
        text = f"No node has a free {lacking[0]}"
    else:
        text = "No node can take the pod"
    return Diagnosis("Unschedulable", f"{text}: {_quote(message)} {_asked(pod)}")


_POD_CHECKS: tuple[Callable[[Object, Sequence[Object]], Diagnosis | None], ...] = (_image, _config, _mount, _scheduling)


def _missing(message: str) -> Diagnosis | None:
    if secret := _SECRET.search(message):
        text = f"The Secret {secret.group(1)} does not exist in this namespace; create it."
        return Diagnosis("SecretNotFound", text)
    if config_map := _CONFIG_MAP.search(message):
        text = f"The ConfigMap {config_map.group(1)} does not exist in this namespace; create it."
        return Diagnosis("ConfigMapNotFound", text)
    return None


def _waiting(pod: Object) -> Object:
    waiting: Object = (job_and_pod.trainer_status(pod).get("state") or {}).get("waiting") or {}
    return waiting


def _volume(pod: Object, message: str) -> Object:
    named = _VOLUME.search(message)
    found: Object = next((v for v in pod["spec"].get("volumes") or [] if named and v["name"] == named.group(1)), {})
    return found


def _asked(pod: Object) -> str:
    """Return what the pod needs of a node: the defaults are not in the spec that its user wrote."""
    resources = pod["spec"]["containers"][0].get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    needs = ", ".join(f"{name} {quantity}" for name, quantity in requests.items())
    labels = ", ".join(f"{name}={value}" for name, value in (pod["spec"].get("nodeSelector") or {}).items())
    return f"The pod requests {needs}{f' on a node with {labels}' if labels else ''}; spec.compute changes that."


def _devices(pod: Object) -> list[str]:
    limits = (pod["spec"]["containers"][0].get("resources") or {}).get("limits") or {}
    return [r for r in limits if "/" in r]


def _newest_first(child: Object, events: Sequence[Object]) -> list[Object]:
    """Return the events of an object: what an older one reports may be over."""
    own = [e for e in events if (e.get("involvedObject") or {}).get("uid") == child["metadata"]["uid"]]
    return sorted(own, key=_order, reverse=True)


def _order(event: Object) -> tuple[datetime, bool]:
    """Return the time in whole seconds, as some sources give no more, and a warning after others of one second."""
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    text = text or event["metadata"]["creationTimestamp"]
    return parse_time(text).replace(microsecond=0), event.get("type") == "Warning"


def _quote(message: str) -> str:
    text = " ".join(message.split())[:_MAXIMUM_QUOTE]
    return text if text.endswith(".") else f"{text}."
