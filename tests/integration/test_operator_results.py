"""What a job makes of what its stages report, on a real API server."""

import json
import time
from typing import Any

from finetune_api.status import EvaluationStatus
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import RUN_ID, World

WORSE = EvaluationStatus(
    holdout_loss_base="2.31",
    holdout_loss_tuned="2.87",
    standard_error="0.04",
    verdict="Worse",
    warnings=["Overfitting: the hold-out loss rose."],
)


def jobs(world: World) -> list[str]:
    return [job["metadata"]["labels"]["finetune.dev/stage"] for job in world.items("jobs")]


def reasons(world: World) -> list[str]:
    found = world.items("events", "--field-selector", "involvedObject.kind=FineTuneJob")
    return [event["reason"] for event in found]


def test_an_identical_run_ends_the_job_without_a_gpu(operator: OperatorProcess, world: World) -> None:
    folder = f"{world.namespace}/another/{RUN_ID}"
    world.apply()
    world.end("prepare", reused_from=folder)
    ready = world.wait_for("Ready")
    assert (ready["reason"], world.status()["reusedFrom"]) == ("ReusedArtifacts", f"s3://results/{folder}")
    assert [stage["state"] for stage in world.status()["stages"]] == ["Succeeded", "Skipped", "Skipped"]
    time.sleep(1)
    assert jobs(world) == ["prepare"]


def test_a_missed_gate_fails_the_job_before_export(operator: OperatorProcess, world: World) -> None:
    world.apply(evaluation={"gate": {"onMiss": "Fail"}})
    world.end("prepare")
    world.end("train", evaluation=WORSE)
    failed = world.wait_for("Failed")
    assert failed["reason"] == "GateMissed"
    assert "from 2.31 to 2.87" in failed["message"]
    assert (world.condition("Evaluated")["status"], sorted(jobs(world))) == ("False", ["prepare", "train"])


def test_a_verdict_and_its_warnings_are_reported_and_the_job_continues(operator: OperatorProcess, world: World) -> None:
    world.apply(evaluation={"gate": {}})
    world.end("prepare")
    world.end("train", evaluation=WORSE)
    world.end("export")
    world.wait_for("Succeeded")
    assert world.condition("Evaluated")["reason"] == "Worse"
    reported = reasons(world)
    assert (reported.count("GateMissed"), reported.count("Overfitting")) == (1, 1)


def test_a_job_that_is_over_shows_no_activity(operator: OperatorProcess, world: World) -> None:
    progress = {"stage": "export", "attempt": 0, "activity": "Uploading", "steps": "60/60", "eta": "1s"}
    world.apply()
    world.end("prepare")
    world.end("train")
    world.run("export")
    _report(world, progress)
    world.end("export")
    world.wait_for("Succeeded")
    left = eventually(
        lambda: p if "activity" not in (p := world.status()["progress"]) else None, "the activity is taken back"
    )
    assert left == {"stage": "export", "attempt": 0, "steps": "60/60"}


def _report(world: World, progress: dict[str, Any]) -> None:
    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": world.name},
        "status": {"progress": progress},
    }
    world.kubectl(
        *("apply", "--server-side", "--subresource=status", "--field-manager", "finetune-operator-progress"),
        *("-f", "-"),
        stdin=json.dumps(body),
    )
