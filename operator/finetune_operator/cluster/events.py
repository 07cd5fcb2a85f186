"""Kubernetes Events on a FineTuneJob, for `kubectl describe`."""

import secrets
from datetime import UTC, datetime

from finetune_api import API_VERSION, KIND
from finetune_operator.clock import format_time
from finetune_operator.cluster.client import Object
from finetune_operator.decide.decision import KubernetesEvent
from finetune_operator.names import MANAGED_BY

_MAXIMUM_MESSAGE = 1024  # the API server refuses longer ones


def event_body(job: Object, event: KubernetesEvent) -> Object:
    """Return the body of an Event; its name is random, as Kubernetes does it."""
    metadata = job["metadata"]
    seconds = format_time(datetime.now(UTC))
    message = event.message if len(event.message) <= _MAXIMUM_MESSAGE else event.message[: _MAXIMUM_MESSAGE - 1] + "…"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name']}.{secrets.token_hex(8)}"},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "source": {"component": MANAGED_BY},
        "reportingComponent": MANAGED_BY,
        "firstTimestamp": seconds,
        "lastTimestamp": seconds,
        "count": 1,
    }
