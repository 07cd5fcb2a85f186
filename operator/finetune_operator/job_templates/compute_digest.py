"""A digest of the `spec.compute` that a Job was created with. The live Job is not compared: others change it."""

import hashlib
import json
from typing import Any

from finetune_api.compute import ComputeSpec
from finetune_api.spec import Stage


def digest(compute: ComputeSpec, stage: Stage, *, report_only: bool) -> str:
    """Return 16 hexadecimal digits over what shapes the pods of one stage, or with `report_only` its small pod.

    Defaults are left out, so that a member which a later version adds does not change the digest of existing Jobs.
    """
    parts: dict[str, Any] = compute.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    accelerator, resources = parts.pop("accelerator", {}), parts.pop("resources", {})
    nodes = parts.pop("nodes", None)
    if not report_only:
        parts["resources"] = resources.get(stage)
        # The memory of the device is part of the plan, which is fixed.
        parts["device"] = accelerator.get("extendedResource") if stage == "train" else None
        parts["nodes"] = nodes if stage == "train" else None
    kept = {name: value for name, value in parts.items() if value not in (None, [], {})}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
