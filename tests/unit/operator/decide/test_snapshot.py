"""The part of a spec that the plan is made of, as it is kept and found again."""

from typing import Any

from hypothesis import given

from finetune_api import render
from finetune_api.job import FineTuneJob, ObjectMeta
from finetune_api.spec import FineTuneJobSpec
from finetune_operator.decide import snapshot
from tests.unit.api.strategies import specs, unhurried
from tests.unit.operator.world import SETTINGS, spec

METADATA = ObjectMeta(name="coach", namespace="team", uid="12345-6789")


@unhurried
@given(specs)
def test_the_accepted_part_is_found_again_whatever_the_spec_is_now(written: dict[str, Any]) -> None:
    accepted = FineTuneJobSpec.model_validate(written)
    plan = render.render(FineTuneJob(metadata=METADATA, spec=accepted), SETTINGS.defaults).to_bytes()
    config_map = snapshot.plan_config_map(METADATA, plan, snapshot.planned_part(accepted))
    taken = snapshot.take(plan, accepted, SETTINGS)
    present = FineTuneJobSpec.model_validate(spec(retryGeneration=7))
    found = snapshot.accepted_spec(config_map, present, taken)
    assert found is not None
    assert not snapshot.is_edited(found, taken)
    again = render.render(FineTuneJob(metadata=METADATA, spec=found), SETTINGS.defaults)
    # What is not part of it is the present one.
    assert (found.retry_generation, found.compute) == (7, present.compute)
    assert again.dataset == render.render(FineTuneJob(metadata=METADATA, spec=accepted), SETTINGS.defaults).dataset


def test_other_fields_are_no_part_of_it() -> None:
    one, other = (
        FineTuneJobSpec.model_validate(spec(**more)) for more in ({}, {"suspend": True, "retryGeneration": 1})
    )
    assert snapshot.spec_sha256(one) == snapshot.spec_sha256(other)


def test_an_accepted_part_that_is_not_the_accepted_one_is_not_used() -> None:
    accepted = FineTuneJobSpec.model_validate(spec())
    other = FineTuneJobSpec.model_validate(spec(training={"maxSteps": 7}))
    taken = snapshot.take(b"plan", accepted, SETTINGS)
    config_map = snapshot.plan_config_map(METADATA, b"plan", snapshot.planned_part(other))
    assert snapshot.accepted_spec(config_map, accepted, taken) is None
