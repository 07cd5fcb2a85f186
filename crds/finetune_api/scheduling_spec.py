"""When the pods of a job may run: `spec.scheduling`."""

from typing import Annotated

from pydantic import Field

from finetune_api.base import Model, Name, patterned

# A queue is named in a label of a Job, and a label's value has at most 63 characters.
_LabelName = Annotated[
    str,
    patterned(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "must be the name of an object of at most 63 characters: lower-case letters, digits, '-' and '.'",
        min_length=1,
        max_length=63,
    ),
]


class StageQueueNames(Model):
    """LocalQueues of the stages without a GPU, if they differ from train's."""

    prepare: _LabelName | None = Field(None, description="Left out: kueue.queueName.")
    export: _LabelName | None = Field(None, description="Left out: kueue.queueName.")


class KueueSpec(Model):
    """Each stage waits in a queue of Kueue for its quota, and gives it back when it ends."""

    queue_name: _LabelName = Field(description="A LocalQueue in the job's namespace.")
    workload_priority_class_name: _LabelName | None = Field(
        None, description="A WorkloadPriorityClass. Left out: the priority of compute.priorityClassName applies."
    )
    stage_queue_names: StageQueueNames = StageQueueNames()


class SchedulingSpec(Model):
    """When the pods may run. It does not affect the result; a change applies from the next attempt or stage on."""

    kueue: KueueSpec | None = Field(None, description="Left out: pods are created at once.")
    scheduler_name: Name | None = Field(None, description="The scheduler of the pods. Left out: the cluster's default.")
