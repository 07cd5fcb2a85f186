"""Puts the Job of a stage into a queue of Kueue.

https://kueue.sigs.k8s.io/docs/tasks/run/jobs/ has the labels. They belong on the Job: on its pods, each pod would
become a separate Workload.
"""

from typing import Any

from finetune_api.spec import FineTuneJobSpec, Stage

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"


def put(job: dict[str, Any], spec: FineTuneJobSpec, stage: Stage) -> dict[str, Any]:
    """Return a rendered Job as it waits in its queue; unchanged if the spec names no queue.

    The Job is created suspended, so that it cannot bypass the quota even if Kueue is missing. From then on `suspend`
    belongs to Kueue, which also preempts by it. A preempted Job must survive, to keep its place in the queue. A pod
    that is deleted for a preemption counts as a failure only to a rule of the pod failure policy (`getFailJobMessage`
    in pkg/controller/job/job_controller.go looks at all pods), and a Job that fails by a rule while it is suspended
    never gets a final condition. So a Job in a queue has no rule for exit codes, and the exit code is known only as
    long as the pod exists.
    """
    found = _labels(spec, stage)
    if not found:
        return job
    metadata = {**job["metadata"], "labels": {**job["metadata"]["labels"], **found}}
    rules = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" not in rule]
    return {**job, "metadata": metadata, "spec": {**job["spec"], "suspend": True, "podFailurePolicy": {"rules": rules}}}


def _labels(spec: FineTuneJobSpec, stage: Stage) -> dict[str, str]:
    kueue = spec.scheduling.kueue
    if kueue is None:
        return {}
    own = {"prepare": kueue.stage_queue_names.prepare, "train": None, "export": kueue.stage_queue_names.export}[stage]
    found = {QUEUE_LABEL: own or kueue.queue_name}
    if kueue.workload_priority_class_name:
        found[_PRIORITY_LABEL] = kueue.workload_priority_class_name
    return found
