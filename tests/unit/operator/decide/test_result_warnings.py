"""What is said about a result that counts as a success but is not what was asked for."""

from typing import Any

import pytest

from finetune_api.status import Artifact, DatasetStatus, EvaluationStatus
from tests.unit.operator.world import World, success

WORSE = EvaluationStatus(holdout_loss_base="2.31", holdout_loss_tuned="2.87", standard_error="0.04", verdict="Worse")
BETTER = EvaluationStatus(holdout_loss_base="2.31", holdout_loss_tuned="1.07", standard_error="0.04", verdict="Better")
PARTLY = "DatasetPartlySeen: 480 of 10,000 rows are used; raise training.maxSteps or set training.epochs"
EARLY = "StoppedEarly: training ended after step 120 of 600; step 80 was kept"


def succeeded(evaluation: EvaluationStatus = BETTER, *dataset_warnings: str, **exported: Any) -> World:
    world = World()
    world.reconcile()
    dataset = DatasetStatus(examples=60, supervised_tokens=1, warnings=list(dataset_warnings))
    world.run(message=success("prepare", dataset=dataset))
    world.run(message=success("train", evaluation=evaluation))
    world.run(message=success("export", **exported))
    assert world.status["phase"] == "Succeeded"
    return world


def warned(world: World) -> list[str]:
    return [event.reason for event in world.events if event.type == "Warning"]


def ready(world: World) -> str:
    message: str = world.condition("Ready")["message"]  # type: ignore[index]
    return message


def test_a_worse_result_is_one_event_and_part_of_ready() -> None:
    world = succeeded(WORSE)
    assert warned(world) == ["Worse"]
    assert ready(world).endswith(
        ". Worse: The loss on the hold-out rows went from 2.31 to 2.87 (standard error of the difference 0.04), more "
        "than chance explains."
    )


@pytest.mark.parametrize(
    ("evaluation", "of_dataset", "warning"),
    [
        (BETTER, [PARTLY], PARTLY),
        (BETTER.model_copy(update={"warnings": [EARLY]}), [], EARLY),
    ],
    ids=["partly-seen", "stopped-early"],
)
def test_another_training_than_was_asked_for_is_one_event_and_part_of_ready(
    evaluation: EvaluationStatus, of_dataset: list[str], warning: str
) -> None:
    world = succeeded(evaluation, *of_dataset)
    assert warned(world) == [warning.partition(":")[0]]
    assert ready(world).endswith(f". {warning}.")


def test_a_rejected_file_is_one_event_and_part_of_ready() -> None:
    why = "the Q4_K_M file is not the model that was trained; replace Q4_K_M in export.gguf with Q8_0"
    file = Artifact(name="Q4_K_M", type="GGUF", path="rejected/x", size_bytes=1, sha256="0" * 64, rejected=why)
    world = succeeded(artifacts=[file])
    assert warned(world) == ["FileRejected"]
    assert ready(world).endswith(f". FileRejected: Q4_K_M: {why}.")


def test_ready_still_begins_with_where_the_model_is() -> None:
    world = succeeded(WORSE, PARTLY)
    assert ready(world).startswith(f"The model is in {world.status['outputUri']}. Worse: ")


def test_a_lesser_warning_is_an_event_only() -> None:
    world = succeeded(BETTER, "ManyEpochs: each row is seen 8.0 times")
    assert warned(world) == ["ManyEpochs"]
    assert ready(world) == f"The model is in {world.status['outputUri']}."


def test_an_operator_that_starts_again_repeats_no_event() -> None:
    world = succeeded(WORSE, PARTLY)
    before = list(world.events)
    world.reconcile()
    assert world.events == before
