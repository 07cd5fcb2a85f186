"""Plans that do not fit this trainer."""

import json
from typing import Any

import pytest

from finetune_api.plan import PLAN_VERSION
from tests.support.trainer_job import TrainerJob


def _refused(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> str:
    assert job.run("prepare") == 64
    assert "Traceback" not in "".join(capfd.readouterr())
    message: str = job.result()["message"]
    return message


def test_missing_plan_file(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    job.arguments[:] = ["--plan", str(job.root / "none.json")]
    assert _refused(job, capfd) == (
        f"the plan {job.root}/none.json cannot be read: No such file or directory; pass its path as --plan"
    )


def test_plan_that_was_changed_after_acceptance(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    (job.root / "plan.json").write_text("{}")
    job.arguments[:] = ["--plan-sha256", "0" * 64]
    assert _refused(job, capfd) == (
        f"the plan {job.root}/plan.json was changed after the job was accepted: its sha256 is "
        f"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a, not {'0' * 64}; delete this FineTuneJob "
        "and create it again"
    )


def test_plan_that_is_not_json(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    (job.root / "plan.json").write_text("planVersion: 1")
    assert _refused(job, capfd) == (
        f"the plan {job.root}/plan.json is not JSON; render it with `python -m finetune_trainer plan`"
    )


@pytest.mark.parametrize("version", [99, "1", None])
def test_plan_of_another_version(job: TrainerJob, version: Any, capfd: pytest.CaptureFixture[str]) -> None:
    job.plan["planVersion"] = version
    assert _refused(job, capfd) == (
        f"the plan {job.root}/plan.json has planVersion {version}, and this trainer reads 1 to {PLAN_VERSION}; "
        "use the trainer image that belongs to the operator's version"
    )


def test_plan_without_a_member(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    del job.plan["training"]["seed"]
    assert _refused(job, capfd) == f"the plan {job.root}/plan.json is not valid: training.seed: Field required"


def test_plan_without_model(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    del job.plan["model"]["path"]
    assert _refused(job, capfd) == "the plan has no model; set spec.model"


def test_plan_without_output(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    job.plan["output"] = {}
    assert _refused(job, capfd) == ("the plan has no output; set spec.output.s3 or pass --output file:///FOLDER")


def test_output_of_an_unknown_kind(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    job.arguments[:] = ["--output", "ftp://server/folder"]
    assert _refused(job, capfd) == (
        '"ftp://server/folder" is not an output; write file:///FOLDER or s3://BUCKET/FOLDER'
    )


def test_identity_that_climbs_out_of_the_bucket(job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    job.plan["job"]["namespace"] = "../../etc"
    message = _refused(job, capfd)
    assert message.startswith('the path "../../etc/.runs/11111111-2222/access-')
    assert message.endswith('" is refused: it must be relative and without ".."')
    assert not list(job.root.parent.glob("etc"))


def test_result_of_a_failed_start_names_no_log(job: TrainerJob) -> None:
    job.plan["output"] = {}
    job.run("prepare")
    assert json.loads(job.termination_log.read_bytes()).get("log") is None
