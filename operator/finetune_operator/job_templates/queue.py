"""Which queue of Kueue the Job of a stage waits in.

https://kueue.sigs.k8s.io/docs/tasks/run/jobs/ has the labels. They belong on the Job: on its pods they would make each
of them a workload of its own.
"""

from typing import Any

from finetune_api.spec import FineTuneJobSpec, Stage

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"


def put(job: dict[str, Any], spec: FineTuneJobSpec, stage: Stage) -> dict[str, Any]:
    """Return a rendered Job as it waits in its queue; unchanged if the spec names none.

    Kueue would suspend it itself; without Kueue it must not run past the quota. From then on the field is Kueue's, who
    preempts by it. The Job must outlive that, to keep its place in the queue. How a pod ends that is deleted for it
    counts as no failure, but to a rule: pkg/controller/job/job_controller.go, getFailJobMessage, looks at all pods, and
    a Job that failed by a rule while it was suspended never gets to its end. So in a queue there is no rule for what
    our pods end with, and the code is known as long as the pod is.
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
