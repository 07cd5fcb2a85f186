"""What a job makes of what its stages found: a run that is there already, a verdict, warnings, a server not allowed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.plan import Defaults
from finetune_api.policy import Policy
from finetune_api.result import MAXIMUM_TERMINATION_BYTES
from finetune_api.spec import STAGES
from finetune_api.status import Artifact, DatasetStatus, EvaluationStatus
from tests.unit.operator.world import RUN_ID, SETTINGS, World, spec, success

FOLDER = f"team/other-coach/{RUN_ID}"
ADAPTER = Artifact(name="adapter", type="LoRAAdapter", path="adapter", size_bytes=1, sha256="0" * 64)
BETTER = EvaluationStatus(holdout_loss_base="2.31", holdout_loss_tuned="1.07", standard_error="0.04", verdict="Better")
WORSE = EvaluationStatus(holdout_loss_base="2.31", holdout_loss_tuned="2.87", standard_error="0.04", verdict="Worse")


def jobs(world: World) -> list[str]:
    return [x["metadata"]["labels"]["finetune.dev/stage"] for x in world.created if x["kind"] == "Job"]


def events(world: World) -> list[str]:
    return [e.reason for e in world.events if e.reason not in ("Accepted", "StageStarted", "StageSucceeded")]


def reused(job_spec: dict[str, Any] | None = None, **members: Any) -> World:
    world = World(job_spec)
    world.reconcile()
    world.run(message=success("prepare", reused_from=FOLDER, **members))
    return world


def trained(evaluation: EvaluationStatus | None, gate: dict[str, str] | None = None) -> World:
    world = World(spec(evaluation={"gate": gate} if gate is not None else {}))
    world.reconcile()
    world.run()
    world.run(message=success("train", evaluation=evaluation))
    return world


def test_a_run_that_is_there_already_ends_the_job_without_a_gpu() -> None:
    world = reused()
    assert jobs(world) == ["prepare"]
    assert "gpuSeconds" not in world.status
    assert (world.status["phase"], world.condition("Ready")["status"]) == ("Succeeded", "True")  # type: ignore[index]


def test_a_reused_run_is_named_in_status_and_condition() -> None:
    world = reused()
    uri = f"s3://models/tuned/{FOLDER}"
    assert (world.status["reusedFrom"], world.status["outputUri"]) == (uri, uri)
    succeeded = world.condition("Succeeded")
    assert succeeded is not None
    assert succeeded["reason"] == "ReusedArtifacts"
    assert uri in succeeded["message"]


def test_stages_that_a_reused_run_spares_are_skipped() -> None:
    world = reused()
    assert [world.stage(name)["state"] for name in STAGES] == ["Succeeded", "Skipped", "Skipped"]


def test_the_figures_of_a_reused_run_are_the_job_s() -> None:
    world = reused(artifacts=[ADAPTER], evaluation=BETTER)
    assert [a["name"] for a in world.status["artifacts"]] == ["adapter"]
    assert world.condition("Evaluated")["status"] == "True"  # type: ignore[index]


def test_a_job_that_reused_a_run_starts_nothing_when_its_children_are_deleted() -> None:
    world = reused()
    world.jobs, world.pods, world.config_maps = [], [], []
    world.wait(86400)
    assert jobs(world) == ["prepare"]


def test_a_reused_run_has_passed_the_gate_even_if_its_verdict_is_not_reported() -> None:
    assert reused(spec(evaluation={"gate": {"onMiss": "Fail"}})).status["phase"] == "Succeeded"


def test_a_run_that_the_gate_would_have_failed_is_not_reused() -> None:
    world = reused(spec(evaluation={"gate": {"onMiss": "Fail"}}), evaluation=WORSE)
    assert world.status["failure"]["reason"] == "GateMissed"
    assert jobs(world) == ["prepare"]


def test_the_verdict_is_in_the_conditions_as_soon_as_it_is_known() -> None:
    world = World()
    world.reconcile()
    world.run()
    assert world.condition("Evaluated") is None
    world.run(message=success("train", evaluation=WORSE))
    found = world.condition("Evaluated")
    assert found is not None
    assert (found["status"], found["reason"]) == ("False", "Worse")
    assert world.stage("export")["state"] == "Running"


def test_a_bad_result_is_a_success_if_nobody_asked() -> None:
    world = trained(WORSE)
    world.run()
    assert (world.status["phase"], world.condition("Ready")["status"]) == ("Succeeded", "True")  # type: ignore[index]
    assert world.condition("Evaluated")["status"] == "False"  # type: ignore[index]


def test_a_gate_that_is_missed_fails_the_job_before_export() -> None:
    world = trained(WORSE, {"onMiss": "Fail"})
    assert jobs(world) == ["prepare", "train"]
    failure = world.status["failure"]
    assert (failure["stage"], failure["reason"]) == ("train", "GateMissed")
    assert "from 2.31 to 2.87" in failure["message"]
    assert (world.stage("train")["state"], world.stage("export")["state"]) == ("Failed", "Pending")


def test_what_a_missed_gate_has_cost_is_counted() -> None:
    assert trained(WORSE, {"onMiss": "Fail"}).status["gpuSeconds"] == 60


@pytest.mark.parametrize("evaluation", [None, EvaluationStatus()])
def test_a_gate_is_missed_without_a_verdict(evaluation: EvaluationStatus | None) -> None:
    assert trained(evaluation, {"onMiss": "Fail"}).status["failure"]["reason"] == "GateMissed"


def test_a_gate_that_is_passed_lets_the_job_continue() -> None:
    world = trained(BETTER, {"onMiss": "Fail"})
    world.run()
    assert world.status["phase"] == "Succeeded"
    assert "GateMissed" not in events(world)


def test_a_gate_that_only_warns_says_so_once_and_continues() -> None:
    world = trained(WORSE, {"onMiss": "Warn"})
    world.run()
    assert world.status["phase"] == "Succeeded"
    assert events(world) == ["Worse", "GateMissed", "Succeeded"]


def test_a_warning_is_one_event_named_by_its_first_word() -> None:
    world = World()
    world.reconcile()
    dataset = DatasetStatus(examples=60, supervised_tokens=1, warnings=["ManyEpochs: 8 passes.", "Something else."])
    world.run(message=success("prepare", dataset=dataset))
    evaluation = EvaluationStatus(verdict="Better", warnings=["Overfitting: the loss rose."])
    world.run(message=success("train", dataset=dataset, evaluation=evaluation))
    world.run(message=success("export", evaluation=evaluation))
    reported = [(e.type, e.reason, e.message) for e in world.events if e.type == "Warning"]
    assert reported == [
        ("Warning", "ManyEpochs", "8 passes."),
        ("Warning", "TrainerWarning", "Something else."),
        ("Warning", "Overfitting", "the loss rose."),
    ]


def test_a_job_that_leads_to_a_server_that_is_not_allowed_is_not_accepted() -> None:
    world = World(settings=replace(SETTINGS, defaults=Defaults(policy=Policy(endpoints=["minio.corp"]))))
    world.reconcile()
    accepted = world.condition("Accepted")
    assert accepted is not None
    assert (accepted["status"], accepted["reason"]) == ("False", "EndpointNotAllowed")
    assert accepted["message"].startswith("spec.output.s3.endpoint leads to amazonaws.com, ")
    assert world.finished()
    assert world.created == []


def test_a_job_that_stays_within_the_policy_is_accepted() -> None:
    policy = Policy(endpoints=["*.amazonaws.com", "huggingface.co"])
    world = World(settings=replace(SETTINGS, defaults=Defaults(policy=policy)))
    world.reconcile()
    assert jobs(world) == ["prepare"]


def test_a_policy_that_changes_does_not_stop_a_job_that_was_accepted() -> None:
    world = World()
    world.reconcile()
    world.settings = replace(SETTINGS, defaults=Defaults(policy=Policy(endpoints=["minio.corp"])))
    for _ in range(3):
        world.run()
    assert world.status["phase"] == "Succeeded"


def test_no_artifact_is_missing_though_they_are_too_many_for_the_termination_message() -> None:
    artifacts = [
        Artifact(name=f"{i}", type="GGUF", path=f"gguf/{'n' * 60}-{i}.gguf", size_bytes=i, sha256=f"{i:064x}")
        for i in range(24)
    ]
    assert len(json.dumps([a.to_json() for a in artifacts], separators=(",", ":"))) > MAXIMUM_TERMINATION_BYTES
    world = World()
    world.reconcile()
    world.run()
    world.run()
    world.run(message=success("export", artifacts=artifacts))
    assert world.status["artifacts"] == [a.to_json() for a in artifacts]
