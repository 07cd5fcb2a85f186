"""What was accepted, and the ConfigMaps by which pods read it."""

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from finetune_api import plan as plans
from finetune_api.job import FineTuneJob, ObjectMeta
from finetune_api.plan import Plan
from finetune_api.render import render
from finetune_api.spec import PLANNED_MEMBERS, FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus, Snapshot
from finetune_operator import names
from finetune_operator.decide.observation import Object
from finetune_operator.decide.remedies import RECREATE, REPLACE
from finetune_operator.job_defaults import Settings
from finetune_operator.job_templates import pod

PLAN_NEWER = "PlanNewer"
TRAINER_OLDER = "TrainerOlder"
# `podContract` of the trainer images of this version. Raised when pods get an option that an older image lacks.
POD_CONTRACT = 2
PLAN_KEY = "plan.json"
# For the operator alone: the part of the spec that the plan was made of, in case the job is edited too late.
SPEC_KEY = "spec.json"
CA_KEY = "ca.crt"


def render_plan(metadata: ObjectMeta, spec: FineTuneJobSpec, settings: Settings) -> Plan:
    """Return the plan of a job under the present settings."""
    return render(FineTuneJob(metadata=metadata, spec=spec), settings.defaults)


def take(plan: bytes, spec: FineTuneJobSpec, settings: Settings) -> Snapshot:
    """Return what the status keeps of an accepted plan, which was made of that spec."""
    return Snapshot(
        plan_version=plans.PLAN_VERSION,
        plan_sha256=plans.sha256(plan),
        trainer_image=settings.trainer_image,
        operator_version=settings.operator_version,
        pod_contract=POD_CONTRACT,
        spec_sha256=spec_sha256(spec),
    )


def planned_part(spec: FineTuneJobSpec) -> bytes:
    """Return the part of a spec that the plan is made of, as its user wrote it."""
    # Defaults are left out, so that one that changes in a later version is not taken for an edit.
    written = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    part = {member: written[member] for member in PLANNED_MEMBERS if member in written}
    if "gguf" in part.get("export", {}):
        part["export"]["gguf"].sort()  # the order of a set means nothing
    return json.dumps(part, sort_keys=True, ensure_ascii=False).encode()


def spec_sha256(spec: FineTuneJobSpec) -> str:
    """Return the checksum by which an edit of that part is noticed."""
    return hashlib.sha256(planned_part(spec)).hexdigest()


def is_edited(spec: FineTuneJobSpec, accepted: Snapshot) -> bool:
    """Whether the part of the spec that the plan is made of is not the accepted one, as far as is known.

    The versions before this one kept no checksum, and let nobody edit that part.
    """
    return accepted.spec_sha256 is not None and spec_sha256(spec) != accepted.spec_sha256


def refused_edit(spec: FineTuneJobSpec, found: FineTuneJobStatus) -> str | None:
    """Return what to do about an edit that came when a container had just started; None if there was none."""
    accepted = found.snapshot
    if accepted is None or found.spec_editable or not is_edited(spec, accepted):
        return None
    return f"The spec was edited after the first container had started; the job runs as it was accepted. {REPLACE}"


def newer(snapshot: Snapshot) -> str | None:
    """Return what to do about a plan of a later version, whose pods may need what this one does not render."""
    if snapshot.plan_version <= plans.PLAN_VERSION:
        return None
    return (
        f"Version {snapshot.operator_version} of the operator accepted the job with plan version "
        f"{snapshot.plan_version}; this one supports up to {plans.PLAN_VERSION}. Upgrade the operator to continue the "
        f"job, or start over: {RECREATE}"
    )


def older_trainer(snapshot: Snapshot, spec: FineTuneJobSpec) -> str | None:
    """Return what to do about training on several GPUs, if the accepted trainer image supports only one."""
    if spec.compute.gpus == 1 or (snapshot.pod_contract or 1) >= POD_CONTRACT:
        return None
    return (
        f"Version {snapshot.operator_version} of the operator accepted the job with a trainer image for one GPU, and "
        f"spec.compute now requests {spec.compute.gpus}. Set spec.compute.nodes and "
        "spec.compute.accelerator.extendedResource.count to 1 to continue the job, or start over: "
        f"{RECREATE}"
    )


def stored_plan(config_map: Object, snapshot: Snapshot) -> Plan | None:
    """Return the plan in a ConfigMap, or None if it is not the accepted one."""
    data = str((config_map.get("data") or {}).get(PLAN_KEY, "")).encode()
    if plans.sha256(data) != snapshot.plan_sha256:
        return None
    try:
        return Plan.model_validate_json(data)
    except ValidationError:
        return None


def accepted_spec(config_map: Object, present: FineTuneJobSpec, accepted: Snapshot) -> FineTuneJobSpec | None:
    """Return the present spec with the accepted part from the plan's ConfigMap; None if that is not there."""
    data = str((config_map.get("data") or {}).get(SPEC_KEY, "")).encode()
    if hashlib.sha256(data).hexdigest() != accepted.spec_sha256:
        return None
    try:
        part = FineTuneJobSpec.model_validate_json(data)
    except ValidationError:
        return None
    # Without the checks across members: the present compute need not suit a later training that is not used.
    chosen = {name: part if name in PLANNED_MEMBERS else present for name in FineTuneJobSpec.model_fields}
    written = {name for name, source in chosen.items() if name in source.model_fields_set}
    return FineTuneJobSpec.model_construct(
        _fields_set=written, **{name: getattr(source, name) for name, source in chosen.items()}
    )


def plan_config_map(metadata: ObjectMeta, plan: bytes, spec: bytes | None) -> dict[str, Any]:
    """Return the immutable ConfigMap of the plan and of the part of the spec that it was made of, where known."""
    data = {PLAN_KEY: plan.decode()} | ({SPEC_KEY: spec.decode()} if spec is not None else {})
    return _config_map(metadata, names.plan(metadata, plans.sha256(plan)), data) | {"immutable": True}


def ca_config_map(metadata: ObjectMeta, settings: Settings) -> dict[str, Any]:
    """Return the ConfigMap of the progress endpoint's certificate authority. It is replaced when that changes."""
    return _config_map(metadata, names.ca(metadata), {CA_KEY: settings.ca_pem})


def _config_map(metadata: ObjectMeta, name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": names.labels(metadata),
            "ownerReferences": [pod.owner(metadata)],
        },
        "data": data,
    }
