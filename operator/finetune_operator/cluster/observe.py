"""Read everything that a decision rests on, from the API server itself: no watch cache is asked."""

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

# The newest Events of one object say why it waits; there may be hundreds of old ones.
_EVENTS_PER_OBJECT = 20


async def observe(client: KubeClient, namespace: str, name: str) -> tuple[Object, Observation]:
    """Return the FineTuneJob as it is stored, and what `decide` gets to see.

    The children are listed after the FineTuneJob was read and without a resourceVersion, so they are at least as new.
    So are the pods in turn: in a list from before its Job was Complete, a pod's result would seem to be lost.

    Raises:
        NotFound: there is no such FineTuneJob.
        ValidationError: its status is none that this version understands.
        KubeError: the API server cannot be asked.
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
        # No Kueue, or one that does not serve this version any more; or a chart without the right to ask.
        if error.status in (403, 404):
            return None
        raise
    return tuple(found)


def _last_seen(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((t for t in times if t), event["metadata"].get("creationTimestamp") or "")
