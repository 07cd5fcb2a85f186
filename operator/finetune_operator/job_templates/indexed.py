"""Several pods that train together: an Indexed Job, whose pods find the first one by its DNS name.

https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/
"""

from typing import Any

from finetune_operator import names
from finetune_operator.job_templates import pod
from finetune_operator.job_templates.attempt import Attempt


def arguments(attempt: Attempt) -> list[str]:
    """Return the trainer's options; JOB_COMPLETION_INDEX has the index of each pod."""
    nodes = attempt.spec.compute.nodes
    if nodes == 1:
        return []
    leader = f"{names.job(attempt.metadata, 'train', attempt.number)}-0.{names.service(attempt.metadata)}"
    return ["--nodes", str(nodes), "--leader", leader]


def spread(job: dict[str, Any], attempt: Attempt) -> dict[str, Any]:
    """Return the Job with one pod for each node: all have to succeed, and one that fails fails the Job."""
    nodes = attempt.spec.compute.nodes
    if nodes == 1:
        return job
    template = job["spec"]["template"]
    # With a subdomain, each pod has the DNS name <Job>-<index>.<subdomain>.
    named = {**template, "spec": {**template["spec"], "subdomain": names.service(attempt.metadata)}}
    several = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "template": named}
    return {**job, "spec": {**job["spec"], **several}}


def service(attempt: Attempt) -> dict[str, Any] | None:
    """Return the headless Service that gives the pods DNS names, the same for all attempts; None for one pod."""
    metadata = attempt.metadata
    if attempt.report_only or attempt.spec.compute.nodes == 1:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service(metadata),
            "namespace": metadata.namespace,
            "labels": names.labels(metadata),
            "ownerReferences": [pod.owner(metadata)],
        },
        "spec": {
            "clusterIP": "None",
            # The pods connect to each other before they are ready.
            "publishNotReadyAddresses": True,
            "selector": {names.JOB_UID_LABEL: metadata.uid, names.STAGE_LABEL: "train"},
        },
    }
