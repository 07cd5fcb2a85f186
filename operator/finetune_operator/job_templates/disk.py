"""How much ephemeral storage a pod requests, so that it is not scheduled where its files do not fit."""

from decimal import Decimal
from typing import Any

from finetune_api.spec import Stage
from finetune_operator.job_templates.attempt import Attempt

_RESOURCE = "ephemeral-storage"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_UNITS = {"": Decimal(1), "m": Decimal("0.001")}
_UNITS |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGT", 1)}
_UNITS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", 1)}


def need(attempt: Attempt, stage: Stage) -> int | None:
    """Return the MiB that a stage writes to its scratch space, as prepare estimated them; None if it is not known."""
    scratch = attempt.scratch
    if scratch is None:
        return None
    return {"prepare": None, "train": scratch.train_mib, "export": scratch.export_mib}[stage]


def requested(resources: dict[str, Any], need_mib: int | None, scratch_size: str | None) -> dict[str, Any]:
    """Return a container's resources with a request for ephemeral storage, unless they have one.

    The request never exceeds the limit of the container or of the scratch space: the pod would be refused, or wait for
    disk that it may not use.

    Args:
        resources: requests and limits.
        need_mib: what the stage needs. None: no request.
        scratch_size: the limit of the scratch space, a quantity.
    """
    requests = resources.get("requests", {})
    if need_mib is None or _RESOURCE in requests:
        return resources
    limits = [scratch_size, resources.get("limits", {}).get(_RESOURCE)]
    smallest = min([f"{need_mib}Mi", *(limit for limit in limits if limit)], key=_bytes)
    return {**resources, "requests": {**requests, _RESOURCE: smallest}}


def _bytes(quantity: str) -> Decimal:
    number = quantity.rstrip("mkKMGTi")
    return Decimal(number) * _UNITS[quantity.removeprefix(number)]
