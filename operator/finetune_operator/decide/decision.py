"""What one pass of the reconcile loop wants done."""

from dataclasses import dataclass
from typing import Any, Literal, Self


@dataclass(frozen=True)
class CreateConfigMap:
    """Create it. If the name is taken (409), end the pass and observe again."""

    body: dict[str, Any]


@dataclass(frozen=True)
class UpdateConfigMap:
    """Replace it. The body carries the observed resource version; on a conflict, end the pass and observe again."""

    body: dict[str, Any]


@dataclass(frozen=True)
class CreateJob:
    """Create it. If the name is taken (409), end the pass and observe again: it is the Job of the same attempt."""

    body: dict[str, Any]


@dataclass(frozen=True)
class EnsureService:
    """Create it unless it exists. It is the same for all attempts of a job, and never changes."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Deletion:
    """Delete it, as it was observed.

    If it is gone already, continue. If it has changed since it was observed, end the pass and observe again: it may
    just have succeeded.
    """

    name: str
    uid: str
    resource_version: str

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        """Delete this object."""
        metadata = found["metadata"]
        return cls(metadata["name"], metadata["uid"], metadata["resourceVersion"])


@dataclass(frozen=True)
class DeleteJob(Deletion):
    """In the foreground: its pods get SIGTERM, and it is gone once they have ended."""


@dataclass(frozen=True)
class DeleteConfigMap(Deletion):
    """Delete a ConfigMap of the job."""


@dataclass(frozen=True)
class DeleteFineTuneJob(Deletion):
    """Delete the job itself; the garbage collector deletes its children."""


Action = CreateConfigMap | UpdateConfigMap | EnsureService | CreateJob | DeleteJob | DeleteConfigMap | DeleteFineTuneJob


@dataclass(frozen=True)
class KubernetesEvent:
    """An Event on the FineTuneJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What to carry out, in this order: the actions, one by one; the status; the events, at the latest after the pass.

    A failure ends the pass there, without the rest. After a Job was created, `decide` again with that Job, and carry
    out the new decision instead of the rest; so too after the API server refused a create, with `Observation.refusal`
    set.
    """

    actions: tuple[Action, ...] = ()
    # The whole status without progress, for server-side apply. None: it does not change.
    status: dict[str, Any] | None = None
    # Only with a status: they report its change, so they are emitted once it is written.
    events: tuple[KubernetesEvent, ...] = ()
    # Seconds until the next pass even if nothing happens. None: wait for a change.
    requeue_after: float | None = None
