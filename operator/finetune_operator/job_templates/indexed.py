"""Several pods that train together: an Indexed Job, whose pods find the first one by its name.

https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/
"""

from typing import Any

from finetune_operator import names
from finetune_operator.job_templates import pod
from finetune_operator.job_templates.attempt import Attempt


def arguments(attempt: Attempt) -> list[str]:
    """The trainer's options; a pod has its own number in JOB_COMPLETION_INDEX."""
    nodes = attempt.spec.compute.nodes
    if nodes == 1:
        return []
    leader = f"{names.job(attempt.metadata, 'train', attempt.number)}-0.{names.service(attempt.metadata)}"
    return ["--nodes", str(nodes), "--leader", leader]


def spread(job: dict[str, Any], attempt: Attempt) -> dict[str, Any]:
    """Return the Job with a pod on each node: all have to succeed, and one that fails ends the Job with the others."""
    nodes = attempt.spec.compute.nodes
    if nodes == 1:
        return job
    template = job["spec"]["template"]
    # With it Kubernetes gives each pod the name <Job>-<index>.<subdomain> in the DNS.
    named = {**template, "spec": {**template["spec"], "subdomain": names.service(attempt.metadata)}}
    several = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "template": named}
    return {**job, "spec": {**job["spec"], **several}}


def service(attempt: Attempt) -> dict[str, Any] | None:
    """The headless Service that gives the pods names, the same for all attempts; None for one pod."""
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
            # They look for each other before they are ready.
            "publishNotReadyAddresses": True,
            "selector": {names.JOB_UID_LABEL: metadata.uid, names.STAGE_LABEL: "train"},
        },
    }
