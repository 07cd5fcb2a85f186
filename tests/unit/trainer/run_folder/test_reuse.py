"""A complete run that came from the same things is found, and nothing else is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_trainer.errors import ModelError
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.run_folder import reuse
from finetune_trainer.run_folder.manifest import Manifest, is_log, list_files
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.storage.folder import FileStore
from tests.support.trainer_job import TrainerJob, alpaca_rows, write_rows

RUN_ID = "a" * 64
FILE = "gguf/coach-Q8_0.gguf"
ARTIFACT = {"name": "Q8_0", "type": "GGUF", "path": FILE, "sizeBytes": 4, "sha256": "b" * 64}


def _context(job: TrainerJob, name: str = "coach", reused: str = "Identical") -> Context:
    plan = Plan.model_validate(job.plan)
    plan = plan.model_copy(update={"output": plan.output.model_copy(update={"reuse": reused})})
    store = FileStore(job.output)
    return Context(plan, JobLayout("gym", name, "1"), store, ProgressReporter("prepare", 0), job.root, 0, StopFlag())


def _complete(context: Context, run_id: str = RUN_ID, artifacts: Sequence[dict[str, Any]] = (ARTIFACT,)) -> Manifest:
    """Write what export leaves, up to its manifest."""
    folder = context.layout.run(run_id)
    context.store.put_bytes(f"{folder}/{FILE}", b"gguf")
    found = Manifest.model_validate(
        {
            "runId": run_id,
            "job": {"namespace": "gym", "name": context.layout.name, "uid": "1"},
            "model": {"revision": "r", "reference": "org/base", "architecture": "LlamaForCausalLM", "files": []},
            "template": "Alpaca",
            "dataset": {"examples": 60, "supervisedTokens": 900},
            "plan": {},
            "versions": {},
            "evaluation": {"holdoutLossBase": "3.1", "holdoutLossTuned": "1.2", "verdict": "Better"},
            "effective": {"microBatchSize": 2},
            "memory": {"peakMiB": 5000},
            "artifacts": list(artifacts),
            "files": [f.to_json() for f in list_files(context.store, folder, {}, context.scratch) if not is_log(f)],
        }
    )
    context.store.put_bytes(f"{folder}/manifest.json", found.to_bytes())
    return found


def _folder(job: TrainerJob, name: str = "coach") -> Path:
    return job.output / "gym" / name / RUN_ID


def test_result_is_that_of_the_run(job: TrainerJob) -> None:
    _complete(_context(job))
    found = reuse.find(_context(job), RUN_ID)
    assert found is not None
    assert found.to_json() | {"dataset": None, "model": None} == {
        "stage": "prepare",
        "exitCode": 0,
        "reason": "",
        "message": "",
        "runId": RUN_ID,
        "reusedFrom": f"gym/coach/{RUN_ID}",
        "dataset": None,
        "model": None,
        "memory": {"peakMiB": 5000},
        "effective": {"microBatchSize": 2},
        "evaluation": {
            "holdoutLossBase": "3.1", "holdoutLossTuned": "1.2", "verdict": "Better", "warnings": []
        },
        "artifacts": [ARTIFACT],
        "timings": {},
    }  # fmt: skip
    assert found.dataset is not None
    assert found.dataset.examples == 60
    assert found.model is not None
    assert (found.model.revision, found.model.template) == ("r", "Alpaca")


def test_run_of_another_name_is_found_by_the_index(job: TrainerJob) -> None:
    first = _context(job)
    reuse.publish(first, first.layout.run(RUN_ID), _complete(first))
    found = reuse.find(_context(job, "second"), RUN_ID)
    assert found is not None
    assert found.reused_from == f"gym/coach/{RUN_ID}"
    latest = json.loads((job.output / "gym" / "second" / "latest.json").read_text())
    assert latest["manifest"] == f"gym/coach/{RUN_ID}/manifest.json"
    assert latest["uri"].endswith(f"/gym/coach/{RUN_ID}")


def test_run_of_another_name_without_an_index_entry_is_not(job: TrainerJob) -> None:
    _complete(_context(job))
    assert reuse.find(_context(job, "second"), RUN_ID) is None


def test_own_run_is_found_where_export_died_before_the_index(job: TrainerJob) -> None:
    _complete(_context(job))
    assert not (job.output / "gym" / ".index").exists()
    assert reuse.find(_context(job), RUN_ID) is not None
    # From now on by others too.
    assert reuse.find(_context(job, "second"), RUN_ID) is not None


REJECTED = ARTIFACT | {"name": "Q4_K_M", "rejected": "the Q4_K_M file is not the model that was trained"}


def test_a_run_with_a_rejected_file_is_reused_as_it_is(job: TrainerJob) -> None:
    _complete(_context(job), artifacts=[ARTIFACT, REJECTED])
    found = reuse.find(_context(job), RUN_ID)
    assert found is not None
    assert [a.rejected for a in found.artifacts] == [None, REJECTED["rejected"]]


def test_a_run_of_which_every_file_was_rejected_fails_an_identical_job_too(job: TrainerJob) -> None:
    _complete(_context(job), artifacts=[REJECTED])
    with pytest.raises(ModelError, match="the Q4_K_M file is not the model that was trained"):
        reuse.find(_context(job, "coach"), RUN_ID)


def test_never_is_never(job: TrainerJob) -> None:
    _complete(_context(job))
    assert reuse.find(_context(job, reused="Never"), RUN_ID) is None


@pytest.mark.parametrize("damage", ["missing", "size", "manifest", "another"])
def test_incomplete_run_is_not_reused(job: TrainerJob, damage: str) -> None:
    _complete(_context(job))
    file, manifest = _folder(job) / FILE, _folder(job) / "manifest.json"
    if damage == "missing":
        file.unlink()
    elif damage == "size":
        file.write_bytes(b"ggu")
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace(RUN_ID, "c" * 64))
    assert reuse.find(_context(job), RUN_ID) is None


@pytest.mark.parametrize(
    "entry", ["", "[]", "{", '{"folder": "../elsewhere"}', '{"folder": "other/coach/x"}', '{"folder": null}']
)
def test_damaged_index_leads_nowhere(job: TrainerJob, entry: str) -> None:
    context = _context(job)
    context.store.put_bytes(context.layout.index(RUN_ID), entry.encode())
    assert reuse.find(context, RUN_ID) is None


def test_newest_run_of_a_job(job: TrainerJob) -> None:
    context = _context(job)
    assert reuse.newest(context, "coach") is None
    reuse.publish(context, context.layout.run(RUN_ID), _complete(context))
    found = reuse.newest(_context(job, "second"), "coach")
    assert found is not None
    assert found[0] == f"gym/coach/{RUN_ID}"


def _prepare(job: TrainerJob, name: str = "coach", uid: str = "1", **plan: Any) -> dict[str, Any]:
    job.plan["job"] = {"namespace": "gym", "name": name, "uid": uid}
    job.plan["output"] = {"path": str(job.output), "reuse": "Identical"} | plan
    (job.root / "plan.json").write_text(json.dumps(job.plan))
    assert job.run("prepare") == 0
    return job.result()


def _finish(job: TrainerJob, run_id: str) -> None:
    """Leave what export leaves."""
    context = _context(job)
    reuse.publish(context, context.layout.run(run_id), _complete(context, run_id))


def test_identical_job_ends_in_prepare(job: TrainerJob) -> None:
    first = _prepare(job)
    assert "reusedFrom" not in first
    _finish(job, first["runId"])
    second = _prepare(job, "second", "2")
    assert (second["runId"], second["reusedFrom"]) == (first["runId"], f"gym/coach/{first['runId']}")
    assert not (job.output / "gym" / "second" / first["runId"] / "prepared").exists()
    assert job.run("train") == 0
    assert job.run("export") == 0
    assert job.result()["reusedFrom"] == second["reusedFrom"]


def test_other_bytes_under_the_same_name_train_again(job: TrainerJob) -> None:
    first = _prepare(job)
    _finish(job, first["runId"])
    write_rows(job.dataset, alpaca_rows(61))
    second = _prepare(job, uid="2")
    assert "reusedFrom" not in second
    assert second["runId"] != first["runId"]


def test_job_that_reuses_nothing_has_a_run_of_its_own(job: TrainerJob) -> None:
    first = _prepare(job)
    _finish(job, first["runId"])
    second, third = (_prepare(job, uid=uid, reuse="Never")["runId"] for uid in "23")
    assert len({first["runId"], second, third}) == 3
