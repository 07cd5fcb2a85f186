"""The two ConfigMaps of a job: its plan, which is restored if it is lost, and the certificate authority."""

from finetune_api.plan import Plan
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure, Snapshot
from finetune_operator import names
from finetune_operator.decide import job_and_pod, snapshot
from finetune_operator.decide.decision import Action, CreateConfigMap, UpdateConfigMap
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.remedies import RECREATE
from finetune_operator.job_defaults import Settings


def upkeep(observation: Observation, spec: FineTuneJobSpec, settings: Settings) -> tuple[Action, ...]:
    """Return what makes both ConfigMaps exist, with the present certificate authority."""
    return (*_restore_plan(observation, spec, settings), *_publish_ca(observation, settings))


def has_plan(observation: Observation, accepted: Snapshot) -> bool:
    """Whether a ConfigMap has the name of the accepted plan."""
    return _plan_config_map(observation, accepted) is not None


def accepted_plan(
    observation: Observation, spec: FineTuneJobSpec, accepted: Snapshot, settings: Settings
) -> Plan | Failure:
    """Return the accepted plan, from its ConfigMap or rendered again to the same bytes; the failure if it is lost."""
    config_map = _plan_config_map(observation, accepted) or _restored(observation, spec, accepted, settings)
    plan = snapshot.stored_plan(config_map, accepted)
    if plan is None:
        name = names.plan(observation.metadata, accepted.plan_sha256)
        message = f"The accepted plan is lost: the ConfigMap {name} was deleted or replaced. {RECREATE}"
        return Failure(reason="PlanLost", message=message)
    return plan


def accepted_spec(observation: Observation, present: FineTuneJobSpec, accepted: Snapshot) -> FineTuneJobSpec | None:
    """Return the present spec with the part that was accepted, if a ConfigMap has it."""
    found = (snapshot.accepted_spec(c, present, accepted) for c in observation.config_maps)
    return next((spec for spec in found if spec is not None), None)


def _plan_config_map(observation: Observation, accepted: Snapshot) -> Object | None:
    return job_and_pod.named(observation.config_maps, names.plan(observation.metadata, accepted.plan_sha256))


def _restore_plan(observation: Observation, spec: FineTuneJobSpec, settings: Settings) -> list[Action]:
    accepted = observation.status.snapshot
    if accepted is None or has_plan(observation, accepted):
        return []
    body = _restored(observation, spec, accepted, settings)
    return [CreateConfigMap(body)] if snapshot.stored_plan(body, accepted) else []


def _restored(observation: Observation, spec: FineTuneJobSpec, accepted: Snapshot, settings: Settings) -> Object:
    """Return a new ConfigMap for the plan, from one of a version with other names or rendered again."""
    stored = next((c for c in observation.config_maps if snapshot.stored_plan(c, accepted)), None)
    part = None if snapshot.is_edited(spec, accepted) else snapshot.planned_part(spec)
    if stored is not None:
        return snapshot.plan_config_map(observation.metadata, stored["data"][snapshot.PLAN_KEY].encode(), part)
    rendered = snapshot.render_plan(observation.metadata, spec, settings).to_bytes()
    return snapshot.plan_config_map(observation.metadata, rendered, part)


def _publish_ca(observation: Observation, settings: Settings) -> list[Action]:
    body = snapshot.ca_config_map(observation.metadata, settings)
    config_map = job_and_pod.named(observation.config_maps, body["metadata"]["name"])
    if config_map is None:
        return [CreateConfigMap(body)]
    if config_map.get("data") == body["data"]:
        return []
    version = config_map["metadata"]["resourceVersion"]
    return [UpdateConfigMap({**body, "metadata": {**body["metadata"], "resourceVersion": version}})]
