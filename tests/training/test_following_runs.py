"""Runs of the whole trainer that follow one another: continued from an adapter, and reused."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import tiny_model, trainer_job
from tests.training.conftest import Job

ROWS = trainer_job.alpaca_rows(60)


def _train(root: Path, model: Path, steps: int, adapter: Path | None = None) -> Job:
    root.mkdir()
    plan = trainer_job.make(root, model, list(ROWS)).plan
    plan["model"]["quantization"] = "None"
    if adapter is not None:
        plan["model"]["adapter"] = {"path": str(adapter)}
    plan["training"] |= {"batchSize": 4, "microBatchSize": 2, "maxSteps": steps, "learningRate": 0.1}
    plan["training"] |= {"warmupSteps": 0, "keep": "Last"}
    plan["evaluation"] = {"prompts": ["스쿼트는 어떻게 하나요?"], "maxNewTokens": 4}
    plan["export"] = {"gguf": []}
    plan["output"]["reuse"] = "Identical"
    (root / "plan.json").write_text(json.dumps(plan))
    job = Job(root)
    for stage in ("prepare", "train", "export"):
        assert job.finish(stage) == 0, job.said(stage)
        shutil.copy(job.termination_log, root / f"{stage}.json")
    return job


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Job]:
    """Return a job, and one that continues from its adapter."""
    root = tmp_path_factory.mktemp("continue")
    model = tiny_model.build(root / "tiny")
    first = _train(root / "first", model, 6)
    return first, _train(root / "second", model, 2, first.run / "adapter")


def _evaluation(job: Job) -> dict[str, str]:
    found: dict[str, str] = json.loads((job.root / "train.json").read_text())["evaluation"]
    return found


def test_it_starts_with_the_loss_at_which_the_earlier_run_ended(jobs: tuple[Job, Job]) -> None:
    first, second = map(_evaluation, jobs)
    assert float(first["holdoutLossBase"]) > float(first["holdoutLossTuned"]) + 0.005
    assert float(second["holdoutLossBase"]) == pytest.approx(float(first["holdoutLossTuned"]), abs=2e-4)


def test_the_result_is_another_adapter_of_the_same_form(jobs: tuple[Job, Job]) -> None:
    from safetensors.torch import load_file

    before, after = (load_file(job.run / "adapter" / "adapter_model.safetensors") for job in jobs)
    assert before.keys() == after.keys()
    assert any(bool((before[name] != after[name]).any()) for name in before)


def test_lineage_is_kept(jobs: tuple[Job, Job]) -> None:
    first, second = jobs
    uri = (first.run / "adapter").as_uri()
    assert json.loads((second.run / "prepared" / "prepared.json").read_text())["adapter"]["uri"] == uri
    assert json.loads((second.root / "prepare.json").read_text())["model"]["adapter"] == uri
    assert json.loads((second.run / "manifest.json").read_text())["adapter"]["uri"] == uri


def test_the_same_job_again_ends_in_prepare_with_the_results(jobs: tuple[Job, Job]) -> None:
    first, _ = jobs
    plan = first.root / "plan.json"
    content = json.loads(plan.read_text())
    content["job"] |= {"name": "again", "uid": "another"}
    plan.write_text(json.dumps(content))
    assert first.finish("prepare", 1) == 0, first.said("prepare", 1)
    found = first.result()
    trained = json.loads((first.root / "train.json").read_text())
    assert found["reusedFrom"] == first.run.relative_to(first.output).as_posix()
    assert found["evaluation"]["holdoutLossTuned"] == trained["evaluation"]["holdoutLossTuned"]
    assert found["artifacts"] == trained["artifacts"]
