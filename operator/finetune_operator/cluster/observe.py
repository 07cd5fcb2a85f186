"""Reads everything that a decision depends on, from the API server itself and not from a watch cache."""

import asyncio
from dataclasses import replace

from finetune_operator import names
from finetune_operator.cluster.client import (
    CONFIG_MAPS,
    EVENTS,
    FINETUNE_JOBS,
    JOBS,
    PODS,
    WORKLOADS,
    KubeClient,
    Object,
)
from finetune_operator.cluster.errors import ApiError
from finetune_operator.decide import diagnose, kueue_wait
from finetune_operator.decide.observation import Observation

# The newest Events of an object say why it waits; there may be hundreds of old ones.
_EVENTS_PER_OBJECT = 20


async def observe(client: KubeClient, namespace: str, name: str) -> tuple[Object, Observation]:
    """Return the stored FineTuneJob, and the observation for `decide`.

    The Jobs are listed after the FineTuneJob is read, and without a resourceVersion, so they are at least as new. The
    pods are listed after the Jobs: in a list from before its Job was Complete, a pod would have no result yet.

    Raises:
        NotFound: there is no such FineTuneJob.
        ValidationError: this version does not understand its status.
        KubeError: the API server cannot be reached.
    """
    job = await client.get(FINETUNE_JOBS, namespace, name)
    selector = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.JOB_LABEL}={name}"
    jobs, config_maps = await asyncio.gather(
        *(client.list(resource, namespace, labels=selector) for resource in (JOBS, CONFIG_MAPS))
    )
    pods = await client.list(PODS, namespace, labels=selector)
    observation = Observation.of(job, jobs=jobs, pods=pods, config_maps=config_maps)
    events: list[Object] = []
    for child in diagnose.needs_events(observation):
        found = await client.list(EVENTS, namespace, fields=f"involvedObject.uid={child['metadata']['uid']}")
        events += sorted(found, key=_last_seen)[-_EVENTS_PER_OBJECT:]
    held = kueue_wait.held(observation)
    workloads = await _workloads(client, held) if held else None
    return job, replace(observation, events=tuple(events), workloads=workloads)


async def _workloads(client: KubeClient, job: Object) -> tuple[Object, ...] | None:
    metadata = job["metadata"]
    try:
        found = await client.list(
            WORKLOADS, metadata["namespace"], labels=f"{kueue_wait.JOB_UID_LABEL}={metadata['uid']}"
        )
    except ApiError as error:
        # No Kueue, or one that does not serve this API version; or a role without the right to list Workloads.
        if error.status in (403, 404):
            return None
        raise
    return tuple(found)


def _last_seen(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((t for t in times if t), event["metadata"].get("creationTimestamp") or "")
