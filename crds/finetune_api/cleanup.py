"""What the operator tells prepare about the other jobs of the namespace, to clean up after those that ended.

It is outside the plan, whose checksum must not change with the neighbours: an environment variable of the pod. Trainer
images of earlier versions ignore it.
"""

from finetune_api.base import Model, ShortText, Timestamp

# An object of this form, as JSON.
VARIABLE = "FINETUNE_CLEANUP"
# Pods must not become too large: with more FineTuneJobs in a namespace, nothing is cleaned there.
MAXIMUM_JOBS = 2000


def short(uid: str) -> str:
    """Return the part of a uid that stands for it in the lists: two of the same part are kept longer, no more."""
    return uid[:8]


class Neighbours(Model):
    """The FineTuneJobs of a namespace, by short uid. One that is in no list did not exist at `listedAt`."""

    # The uid of the kube-system namespace, which no two clusters share.
    cluster_id: ShortText
    # By the operator's clock. A job that was created later is in no list.
    listed_at: Timestamp
    # Nothing of them is deleted.
    kept: list[str] = []
    # They failed long ago: only their checkpoints are deleted.
    failed: list[str] = []


class Owner(Model):
    """The marker in the state folder of a job: who may delete that folder."""

    cluster_id: ShortText
    # The FineTuneJob, for people who look into the bucket.
    job: str
