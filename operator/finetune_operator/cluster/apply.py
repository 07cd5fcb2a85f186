"""Carries out decisions. Everything that the reconcile loop changes in the cluster is changed here.

The client that is given here refuses to send a change when this replica does not lead any more. What it sent just
before may still take effect when another replica leads already. That does no harm:

- A Job's name is made from the job's uid, the stage and the attempt, so that of two replicas that want the same attempt
  one creates it and the other finds it. A new attempt begins only when no Job and no pod of an earlier one is live, and
  a Job that comes after that all the same is deleted, and one of a plan that was not accepted too (`stale_jobs`).
- A plan's ConfigMap is immutable, and its name is made from the uid and its own checksum. One that was rendered under
  other settings is not what the status names, and nobody looks at it.
- The Service of the train pods is the same whoever creates it, and for all attempts.
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
# What quotas, policies and webhooks answer; a webhook that gives no code of its own is quoted with 400.
_REFUSALS = (400, 403, 422)
# Of 500: a webhook without which nothing may be created does not answer.
_WEBHOOK = "failed calling webhook"


class NameTaken(KubeError):  # noqa: N818
    """An object that is not ours has the name of a child."""


class Refused(KubeError):  # noqa: N818
    """The API server does not take this child: it is forbidden or invalid. The text is its own."""


async def carry_out(client: KubeClient, job: Object, actions: Sequence[Action]) -> list[Object]:
    """Do all that, in order; return the Jobs and ConfigMaps that were created or replaced, as they are now.

    Raises:
        Refused: a child was refused; the rest was left out.
        Conflict: something has changed since it was observed; the rest was left out.
        NameTaken: see there.
        KubeError: the API server cannot be asked; the rest was left out.
    """
    answers = [await _carry_out(client, job, action) for action in actions]
    return [answer for answer in answers if answer is not None]


async def tell(client: KubeClient, job: Object, events: Sequence[KubernetesEvent]) -> None:
    """Record Events on a FineTuneJob, all at a time."""

    async def record(event: KubernetesEvent) -> None:
        try:
            await client.create(EVENTS, job["metadata"]["namespace"], event_body(job, event))
        except KubeError as error:
            # The status says the same, and a repeated pass would not emit it again.
            _log.warning("an Event was not recorded: %s", error, extra={"key": _key(job)})

    await asyncio.gather(*map(record, events))


async def _carry_out(client: KubeClient, job: Object, action: Action) -> Object | None:
    namespace = job["metadata"]["namespace"]
    match action:
        case CreateConfigMap(body):
            return await _create(client, CONFIG_MAPS, job, body)
        case CreateJob(body):
            return await _create(client, JOBS, job, body)
        case EnsureService(body):
            # Nobody lists Services: that it is there is only known from the attempt to create it.
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
            raise  # a pass that was cut off, or an old read: observe it
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
    """Apply the whole of what one field manager says in the status; `job` is the FineTuneJob as it was read.

    Raises:
        Conflict: the FineTuneJob has changed since, or is another one by now.
    """
    metadata = {member: job["metadata"][member] for member in ("namespace", "name", "uid", "resourceVersion")}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
    return await client.apply_status(FINETUNE_JOBS, metadata["namespace"], metadata["name"], body, manager=manager)


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]
