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
    """Create it. If the name is taken (409), end the pass and observe again: it is this very attempt's Job."""

    body: dict[str, Any]


@dataclass(frozen=True)
class EnsureService:
    """Create it, unless it is there already. It is the same for all attempts of a job, and never changes."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Deletion:
    """Delete it, as it was observed.

    If it is gone already, go on. If it is no longer what was observed, end the pass and observe again: it may just have
    succeeded, or been asked to go on.
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
    """It is gone once its pods have ended, which get SIGTERM (foreground)."""


@dataclass(frozen=True)
class DeleteConfigMap(Deletion):
    """One of the job's own."""


@dataclass(frozen=True)
class DeleteFineTuneJob(Deletion):
    """The job itself; its children go after it."""


Action = CreateConfigMap | UpdateConfigMap | EnsureService | CreateJob | DeleteJob | DeleteConfigMap | DeleteFineTuneJob


@dataclass(frozen=True)
class KubernetesEvent:
    """An Event on the FineTuneJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """Carry it out in this order: the actions, one by one; the status; the events, which may wait for the pass to end.

    Whatever fails ends the pass there, without the rest. After a Job was created `decide` again, with that Job, and
    carry that out instead of the rest. So too when the API server refuses a create, with `Observation.refusal` set.
    """

    actions: tuple[Action, ...] = ()
    # The whole status without progress, for server-side apply. None: it is as it should be.
    status: dict[str, Any] | None = None
    # Only ever with a status: they tell of its change, so they are due once it is written.
    events: tuple[KubernetesEvent, ...] = ()
    # Seconds until the next pass even if nothing happens. None: wait for a change.
    requeue_after: float | None = None
