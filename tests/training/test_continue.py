"""An earlier adapter is trained further: it starts where the earlier run ended."""

import json
from pathlib import Path

import pytest

from tests.training.conftest import Job, make_job


@pytest.fixture(scope="module")
def continued(trained: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Two more steps on the same rows."""
    root = tmp_path_factory.mktemp("continued")
    job = make_job(root)
    plan = json.loads((root / "plan.json").read_text())
    plan["model"]["adapter"] = {"path": str(trained.run / "adapter")}
    plan["training"] |= {"maxSteps": 2}
    plan["output"] = {"path": str(root / "continued")}
    (root / "plan.json").write_text(json.dumps(plan))
    job = Continued(root)
    assert job.finish("prepare") == 0, job.said("prepare")
    assert job.finish("train") == 0, job.said("train")
    return job


class Continued(Job):
    """Its results lie beside those of the fresh job."""

    @property
    def output(self) -> Path:
        return self.root / "continued"


def test_it_starts_with_the_loss_at_which_the_earlier_run_ended(trained: Job, continued: Job) -> None:
    earlier = json.loads((trained.root / "train.json").read_text())["evaluation"]
    found = continued.result()["evaluation"]
    assert float(found["holdoutLossBase"]) == pytest.approx(float(earlier["holdoutLossTuned"]), abs=2e-4)
    assert float(earlier["holdoutLossBase"]) > float(earlier["holdoutLossTuned"]) + 0.01


def test_the_result_is_another_adapter_of_the_same_form(trained: Job, continued: Job) -> None:
    from safetensors.torch import load_file

    before, after = (load_file(job.run / "adapter" / "adapter_model.safetensors") for job in (trained, continued))
    assert before.keys() == after.keys()
    assert any(bool((before[name] != after[name]).any()) for name in before)


def test_lineage_is_kept(trained: Job, continued: Job) -> None:
    description = json.loads((continued.run / "prepared" / "prepared.json").read_text())
    assert description["adapter"]["uri"] == (trained.run / "adapter").as_uri()
