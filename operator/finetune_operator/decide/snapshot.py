"""What was accepted, and the ConfigMaps by which pods read it."""

from typing import Any

from pydantic import ValidationError

from finetune_api import plan as plans
from finetune_api.job import FineTuneJob, ObjectMeta
from finetune_api.plan import Plan
from finetune_api.render import render
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Snapshot
from finetune_operator import names
from finetune_operator.decide.observation import Object
from finetune_operator.decide.remedies import RECREATE
from finetune_operator.job_defaults import Settings
from finetune_operator.job_templates import pod

PLAN_NEWER = "PlanNewer"
TRAINER_OLDER = "TrainerOlder"
# `podContract` of the trainer images of this version. Raised when pods get an option that an older image lacks.
POD_CONTRACT = 2
PLAN_KEY = "plan.json"
CA_KEY = "ca.crt"


def render_plan(metadata: ObjectMeta, spec: FineTuneJobSpec, settings: Settings) -> Plan:
    """Return the plan of a job under the present settings."""
    return render(FineTuneJob(metadata=metadata, spec=spec), settings.defaults)


def take(plan: bytes, settings: Settings) -> Snapshot:
    """Return what the status keeps of an accepted plan."""
    return Snapshot(
        plan_version=plans.PLAN_VERSION,
        plan_sha256=plans.sha256(plan),
        trainer_image=settings.trainer_image,
        operator_version=settings.operator_version,
        pod_contract=POD_CONTRACT,
    )


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


def plan_config_map(metadata: ObjectMeta, plan: bytes) -> dict[str, Any]:
    """Return the immutable ConfigMap of the plan."""
    return _config_map(metadata, names.plan(metadata, plans.sha256(plan)), {PLAN_KEY: plan.decode()}) | {
        "immutable": True
    }


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
