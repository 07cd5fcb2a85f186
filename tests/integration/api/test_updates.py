"""What may change in a FineTuneJob that exists, and who owns which part of its status."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api import PLURAL
from local_platform import rest
from local_platform.control_plane import ControlPlane
from tests.integration.api.manifests import S3_SOURCE, changed, smallest

MANIFEST = changed(
    smallest(),
    {
        "training": {"maxSteps": 60},
        "evaluation": {"prompts": ["How do I start?"]},
        "export": {"gguf": ["Q8_0", "Q4_K_M"]},
    },
)

CHANGES: dict[str, Any] = {
    "model": {"model.maxSequenceLength": 512},
    "dataset": {"dataset.systemPrompt": "You are a coach."},
    "training": {"training.maxSteps": 61},
    "evaluation": {"evaluation.prompts": []},
    "export": {"export.gguf": ["Q8_0"]},
    "output": {"output.s3.uri": "s3://elsewhere/"},
    "tracking": {"tracking": {"mlflow": {"uri": "http://mlflow.corp:5000"}}},
}
# Members that came later, each inside of one that cannot change: (that one, the change).
LATER: dict[str, tuple[str, dict[str, Any]]] = {
    "adapter": ("model", {"model.adapter": {"fineTuneJobRef": {"name": "first"}}}),
    "columns": ("dataset", {"dataset.columns": {"output": "답변"}}),
    "templateRef": ("dataset", {"dataset.templateRef": {"name": "t", "key": "chat.jinja"}}),
    "holdout-sources": ("dataset", {"dataset.holdout": {"sources": [S3_SOURCE]}}),
    "method": ("training", {"training.method": "DPO"}),
    "keep": ("training", {"training.keep": "Last"}),
    "gate": ("evaluation", {"evaluation.gate": {"onMiss": "Fail"}}),
    "reuse": ("output", {"output.reuse": "Never"}),
}


@pytest.fixture
def coach(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    # As `kubectl apply` leaves it.
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(MANIFEST)}
    manifest = {**MANIFEST, "metadata": {**MANIFEST["metadata"], "annotations": applied}}
    path = rest.path(PLURAL, MANIFEST["metadata"]["namespace"])
    control_plane.rest.call("POST", path, manifest, fieldValidation="Strict")
    yield control_plane
    control_plane.rest.delete(f"{path}/{MANIFEST['metadata']['name']}")


def apply_status(plane: ControlPlane, manager: str, status: dict[str, Any]) -> None:
    manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "coach", "namespace": "default"},
        "status": status,
    }
    plane.rest.call(
        "PATCH",
        rest.path(PLURAL, "default", "coach", "status"),
        manifest,
        content_type="application/apply-patch+yaml",
        fieldManager=manager,
    )


ACCEPTED: dict[str, Any] = {
    "snapshot": {
        "planVersion": 1,
        "planSha256": "a" * 64,
        "trainerImage": "registry.local/trainer:1",
        "operatorVersion": "1.0.0",
    },
}


@pytest.fixture
def started(coach: ControlPlane) -> ControlPlane:
    """The job after its first container has started."""
    apply_status(coach, "finetune-operator", ACCEPTED)
    return coach


def refusal(member: str) -> str:
    return (
        f'The FineTuneJob "coach" is invalid: spec.{member}: Invalid value: '
        f"{member} cannot be changed once the job has started. If the job fails before it trains, change it then, "
        "together with a higher retryGeneration. To use the change now, create a FineTuneJob with a new name, or run "
        "kubectl replace --force -f FILE: it deletes this job, and its training starts again from the beginning\n"
    )


@pytest.mark.parametrize("member", CHANGES)
def test_a_member_that_the_plan_is_made_of_is_fixed_once_the_job_has_started(
    started: ControlPlane, member: str
) -> None:
    assert started.apply(changed(MANIFEST, CHANGES[member])).stderr == refusal(member)


@pytest.mark.parametrize("member", CHANGES)
def test_such_a_member_can_be_corrected_while_the_status_says_so(coach: ControlPlane, member: str) -> None:
    apply_status(coach, "finetune-operator", {**ACCEPTED, "specEditable": True})
    done = coach.apply(changed(MANIFEST, CHANGES[member]))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("member", CHANGES)
def test_such_a_member_can_be_corrected_before_the_job_is_accepted(coach: ControlPlane, member: str) -> None:
    done = coach.apply(changed(MANIFEST, CHANGES[member]))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_cannot_write_that_the_spec_is_editable(started: ControlPlane) -> None:
    done = started.apply({**changed(MANIFEST, CHANGES["model"]), "status": {"specEditable": True}})
    assert done.stderr == refusal("model")


@pytest.mark.parametrize("case", LATER)
def test_a_later_part_of_such_a_member_is_fixed_too(started: ControlPlane, case: str) -> None:
    member, changes = LATER[case]
    assert started.apply(changed(MANIFEST, changes)).stderr == refusal(member)


@pytest.mark.parametrize("member", ["training", "evaluation", "export"])
def test_an_optional_member_cannot_be_removed(started: ControlPlane, member: str) -> None:
    assert started.apply(changed(MANIFEST, {member: None})).stderr == refusal(member)


@pytest.mark.parametrize(
    "changes",
    [
        {"compute.resources.train": {"limits": {"memory": "64Gi"}}},
        {"retries": {"maximum": 5}},
        {"suspend": True},
        {"retryGeneration": 1},
        {"ttlSecondsAfterFinished": 60, "ttlTarget": "FineTuneJob"},
    ],
    ids=["compute", "retries", "suspend", "retryGeneration", "ttl"],
)
def test_what_changes_no_result_can_be_changed(started: ControlPlane, changes: dict[str, Any]) -> None:
    done = started.apply(changed(MANIFEST, changes))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_order_of_gguf_types_means_nothing(started: ControlPlane) -> None:
    done = started.apply(changed(MANIFEST, {"export.gguf": ["Q4_K_M", "Q8_0"]}))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unseen_job_says_that_nobody_has_observed_it(coach: ControlPlane) -> None:
    assert coach.get("finetunejob", "coach")["status"] == {"observedGeneration": -1}


def test_nothing_is_added_to_what_the_user_wrote(coach: ControlPlane) -> None:
    assert coach.get("finetunejob", "coach")["spec"] == MANIFEST["spec"]


def test_a_status_write_does_not_change_the_spec(coach: ControlPlane) -> None:
    before = coach.get("finetunejob", "coach")["metadata"]["generation"]
    apply_status(coach, "finetune-operator", {"observedGeneration": 1, "phase": "Preparing"})
    assert coach.get("finetunejob", "coach")["metadata"]["generation"] == before


def test_two_field_managers_share_the_status(coach: ControlPlane) -> None:
    progress = {"stage": "train", "attempt": 0, "activity": "Training", "step": 3, "steps": "3/60"}
    apply_status(coach, "finetune-operator", {"observedGeneration": 1, "phase": "Training"})
    apply_status(coach, "finetune-progress", {"progress": progress})
    apply_status(coach, "finetune-operator", {"observedGeneration": 1, "phase": "Exporting"})
    status = coach.get("finetunejob", "coach")["status"]
    assert (status["phase"], status["progress"]) == ("Exporting", progress)


def test_conditions_and_stages_are_merged_by_their_keys(coach: ControlPlane) -> None:
    def condition(kind: str) -> dict[str, str]:
        return {
            "type": kind,
            "status": "True",
            "reason": "Because",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }

    apply_status(coach, "finetune-operator", {"conditions": [condition("Accepted")]})
    apply_status(coach, "other", {"conditions": [condition("Ready")]})
    status = coach.get("finetunejob", "coach")["status"]
    assert [c["type"] for c in status["conditions"]] == ["Accepted", "Ready"]


def test_kubectl_get_shows_how_far_a_job_is(coach: ControlPlane) -> None:
    apply_status(
        coach,
        "finetune-operator",
        {
            "observedGeneration": 1,
            "phase": "Training",
            "stage": "train",
            "outputUri": "s3://results/default/coach/0a1b",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "Training",
                    "message": "train is running, attempt 1.",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
            "evaluation": {"verdict": "Better"},
            "progress": {
                "stage": "train",
                "attempt": 0,
                "activity": "Training",
                "step": 37,
                "totalSteps": 60,
                "completed": "37/60 61%",
                "loss": "0.83",
                "tokensPerSecond": 2150,
                "eta": ">1m02s",
            },
        },
    )
    header, row = coach.kubectl("get", "ftj").splitlines()
    assert header.split() == [
        *("NAME", "STATE", "STAGE", "ACTIVITY", "PROGRESS", "LOSS", "ETA", "VERDICT", "REASON", "AGE")
    ]
    assert row.split()[:-1] == [
        *("coach", "Training", "train", "Training", "37/60", "61%", "0.83", ">1m02s", "Better", "Training")
    ]


def test_kubectl_get_wide_adds_model_speed_and_output(coach: ControlPlane) -> None:
    apply_status(
        coach,
        "finetune-operator",
        {
            "outputUri": "s3://results/default/coach/0a1b",
            "model": {"architecture": "LlamaForCausalLM"},
            "progress": {"stage": "train", "attempt": 0, "activity": "Training", "tokensPerSecond": 2150},
        },
    )
    header, row = coach.kubectl("get", "ftj", "-o", "wide").splitlines()
    assert header.split()[-3:] == ["MODEL", "TOKENS/S", "OUTPUT"]
    assert row.split()[-3:] == ["s3://models/llama/", "2150", "s3://results/default/coach/0a1b"]


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ({"huggingFace": {"repository": "org/model"}}, "org/model"),
        ({"s3": {"uri": "s3://models/llama/"}}, "s3://models/llama/"),
        ({"persistentVolumeClaim": {"claimName": "models", "path": "llama"}}, "models"),
    ],
    ids=["hub", "s3", "volume"],
)
def test_the_model_is_shown_as_the_job_names_it(control_plane: ControlPlane, model: dict[str, Any], shown: str) -> None:
    manifest = smallest("models")
    manifest["spec"]["model"] = model
    assert control_plane.apply(manifest).returncode == 0
    try:
        _, row = control_plane.kubectl("get", "ftj", "models", "-o", "wide").splitlines()
    finally:
        control_plane.rest.delete(rest.path(PLURAL, "default", "models"))
    # Besides the name and the age, nobody has written anything else of the job.
    assert row.split()[2] == shown


def test_kubectl_explain_tells_what_a_field_is_for(control_plane: ControlPlane) -> None:
    text = " ".join(control_plane.kubectl("explain", "finetunejob.spec.training.learningRate").split())
    assert 'In quotes, such as "2e-4". Left out: 2e-4 for SFT' in text
