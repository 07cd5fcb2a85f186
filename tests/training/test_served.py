"""A model stored in 4 bit, trained with rank-stabilized LoRA: every file is proven and answers as trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.export import merge
from finetune_trainer.export.exact import gguf_weights, merged_weights
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.adapter import WEIGHTS
from local_cluster.layout import cache
from local_platform.smollm2 import model_dir
from tests.support.tensors import rewrite

from . import served
from .conftest import LOADS_A_MODEL, Job
from .served import GGUFS, LEARNED, Served

pytestmark = [pytest.mark.training, pytest.mark.timeout(900), *LOADS_A_MODEL]


@pytest.fixture(scope="module")
def result() -> Served:
    return served.result()


@pytest.fixture(autouse=True)
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))


def assert_proven(job: Job, *names: str) -> None:
    artifacts = {a["name"]: a for a in json.loads((job.run / "manifest.json").read_text())["artifacts"]}
    for name in names:
        assert float(artifacts[name]["parity"]["retainedGain"]) == pytest.approx(1, abs=0.2)
        assert float(artifacts[name]["parity"]["top1"]) > 0.9
    (question,) = json.loads((job.run / "answers.json").read_text())["questions"]
    assert LEARNED not in question["base"]
    assert question["tuned"].strip() == LEARNED
    found = {kind: answer.strip() for kind, answer in question["gguf"].items()}
    assert found == {kind: LEARNED for kind in GGUFS if kind in names}


def test_added_to_the_original_weights_and_alone(result: Served) -> None:
    assert_proven(result.job, *GGUFS, "LoRA")


def test_added_to_the_weights_of_training(result: Served, tmp_path: Path) -> None:
    job = result.job.copied(tmp_path / "job")
    shutil.rmtree(job.run / "gguf")
    # What the same job has that names no original model; to train it again would give the same adapter.
    for path, changes in (
        (job.root / "plan.json", {"export": {"gguf": ["Q8_0"]}}),
        (job.run / "prepared/prepared.json", {"original": None}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert job.finish("export") == 0, job.said("export")
    assert_proven(job, "Q8_0")


def test_a_file_of_the_base_is_refused(result: Served, tmp_path: Path) -> None:
    merge.merge(model_dir(), result.adapter, tmp_path / "merged", None, None, lambda percent: None)
    with pytest.raises(RejectedFile, match="is not the one of the merged model"):
        gguf_weights.check(served.base_gguf(), tmp_path / "merged", lambda percent: None)


def test_a_scrambled_adapter_is_refused(result: Served, tmp_path: Path) -> None:
    import torch

    adapter = shutil.copytree(result.adapter, tmp_path / "adapter")
    generator = torch.Generator().manual_seed(1)

    def scramble(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensors[name] = tensor[torch.randperm(len(tensor), generator=generator)].clone()

    rewrite(adapter / WEIGHTS, scramble)
    merge.merge(model_dir(), adapter, tmp_path / "merged", None, None, lambda percent: None)
    with pytest.raises(RejectedFile, match="with the adapter it must be"):
        merged_weights.check(model_dir(), result.adapter, tmp_path / "merged", None, lambda percent: None)
