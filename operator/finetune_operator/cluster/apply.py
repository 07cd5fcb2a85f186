"""Carries out decisions. Everything that the reconcile loop changes in the cluster is changed here.

The client refuses to send a change when this replica no longer leads. A change that it sent just before may still take
effect when another replica already leads. That does no harm:

- A Job's name is made from the job's uid, the stage and the attempt. If two replicas want the same attempt, one creates
  the Job and the other finds it. A new attempt begins only when no Job and no pod of an earlier one is live. A Job that
  arrives after that is deleted, and so is one of a plan that was not accepted (`stale_jobs`).
- A plan's ConfigMap is immutable, and its name is made from the uid and its own checksum. The status does not name a
  plan that was rendered under other settings, so nothing reads it.
- The Service of the train pods is the same for all attempts, whichever replica creates it.
- The certificate authority's ConfigMap is compared in every pass, and replaced on the condition of the resourceVersion
  that was read.
- A Job is deleted on the condition of the uid and the resourceVersion that were read.
- The status is written on the condition of the uid and the resourceVersion that were read: it is that of the newest
  pass, or not written.
- An Event follows a status write that was accepted, so that each is emitted at most once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from finetune_api import API_VERSION, KIND
from finetune_operator.cluster.client import (
    CONFIG_MAPS,
    EVENTS,
    FINETUNE_JOBS,
    JOBS,
    SERVICES,
    KubeClient,
    Object,
    Propagation,
    Resource,
)
from finetune_operator.cluster.errors import AlreadyExists, ApiError, KubeError, NotFound
from finetune_operator.cluster.events import event_body
from finetune_operator.decide.decision import (
    Action,
    CreateConfigMap,
    CreateJob,
    DeleteConfigMap,
    DeleteFineTuneJob,
    DeleteJob,
    Deletion,
    EnsureService,
    KubernetesEvent,
    UpdateConfigMap,
)

_log = logging.getLogger(__name__)

FIELD_MANAGER = "finetune-operator"
# The answers of quotas, policies and webhooks; 400 is that of a webhook without a code of its own.
_REFUSALS = (400, 403, 422)
# In the message of a 500: a required webhook does not answer.
_WEBHOOK = "failed calling webhook"


class NameTaken(KubeError):  # noqa: N818
    """An object that does not belong to the job has the name of a child."""


class Refused(KubeError):  # noqa: N818
    """The API server refused to create a child, which is forbidden or invalid. The text is the API server's."""


async def carry_out(client: KubeClient, job: Object, actions: Sequence[Action]) -> list[Object]:
    """Carry out the actions in order; return the Jobs and ConfigMaps that were created or replaced, as they are now.

    Raises:
        Refused: a child was refused; the rest was not carried out.
        Conflict: something has changed since it was observed; the rest was not carried out.
        NameTaken: see there.
        KubeError: the API server cannot be reached; the rest was not carried out.
    """
    answers = [await _carry_out(client, job, action) for action in actions]
    return [answer for answer in answers if answer is not None]


async def emit(client: KubeClient, job: Object, events: Sequence[KubernetesEvent]) -> None:
    """Create Events for a FineTuneJob, all at the same time."""

    async def record(event: KubernetesEvent) -> None:
        try:
            await client.create(EVENTS, job["metadata"]["namespace"], event_body(job, event))
        except KubeError as error:
            # The status says the same, and a repeated pass would not emit the Event again.
            _log.warning("an Event was not created: %s", error, extra={"key": _key(job)})

    await asyncio.gather(*map(record, events))


async def _carry_out(client: KubeClient, job: Object, action: Action) -> Object | None:
    namespace = job["metadata"]["namespace"]
    match action:
        case CreateConfigMap(body):
            return await _create(client, CONFIG_MAPS, job, body)
        case CreateJob(body):
            return await _create(client, JOBS, job, body)
        case EnsureService(body):
            # Services are not listed: only the attempt to create it shows whether it exists.
            with contextlib.suppress(AlreadyExists):
                await _create(client, SERVICES, job, body)
        case UpdateConfigMap(body):
            return await client.replace(CONFIG_MAPS, namespace, body["metadata"]["name"], body)
        case DeleteJob():
            await _delete(client, JOBS, job, action, propagation="Foreground")
        case DeleteConfigMap():
            await _delete(client, CONFIG_MAPS, job, action)
        case DeleteFineTuneJob():
            await _delete(client, FINETUNE_JOBS, job, action)
    return None


async def _create(client: KubeClient, resource: Resource, job: Object, body: Object) -> Object:
    metadata = job["metadata"]
    name = body["metadata"]["name"]
    try:
        created = await client.create(resource, metadata["namespace"], body)
    except AlreadyExists:
        found = await client.get(resource, metadata["namespace"], name)
        if controller_uid(found) == metadata["uid"]:
            raise  # from a pass that was interrupted, or after an old read: observe it
        raise NameTaken(
            f"{resource.plural}/{name} exists and does not belong to this FineTuneJob; delete it or rename the job"
        ) from None
    except ApiError as error:
        if error.status in _REFUSALS or _WEBHOOK in error.message:
            raise Refused(error.message) from error
        raise
    _log.info("created %s/%s", resource.plural, name, extra={"key": _key(job)})
    return created


async def _delete(
    client: KubeClient, resource: Resource, job: Object, what: Deletion, propagation: Propagation = "Background"
) -> None:
    namespace = job["metadata"]["namespace"]
    try:
        await client.delete(
            resource,
            namespace,
            what.name,
            uid=what.uid,
            resource_version=what.resource_version,
            propagation=propagation,
        )
    except NotFound:
        return
    _log.info("deleted %s/%s", resource.plural, what.name, extra={"key": _key(job)})


def controller_uid(child: Object) -> str | None:
    """Return the uid of the object that controls this one."""
    owners = child["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


async def write_status(client: KubeClient, job: Object, status: Object, *, manager: str) -> Object:
    """Apply all status fields of one field manager; `job` is the FineTuneJob as it was read.

    Raises:
        Conflict: the FineTuneJob has changed since, or was replaced by another one.
    """
    metadata = {member: job["metadata"][member] for member in ("namespace", "name", "uid", "resourceVersion")}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
    return await client.apply_status(FINETUNE_JOBS, metadata["namespace"], metadata["name"], body, manager=manager)


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]
