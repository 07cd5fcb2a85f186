"""SERVE.md has a command for each file that was made, and for no other."""

from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import Plan, S3Target
from finetune_trainer.export.serving.guide import Files, text
from finetune_trainer.run_folder.prepared import Prepared
from tests.support import trainer_job

ALL = Files(
    ggufs={"Q8_0": "gguf/coach-Q8_0.gguf"},
    modelfiles={"Q8_0": "gguf/Modelfile-Q8_0"},
    lora_gguf="gguf/coach-LoRA.gguf",
    merged="merged",
)


def prepared(**changes: Any) -> Prepared:
    model = {"revision": "r" * 40, "reference": "org/base", "architecture": "LlamaForCausalLM", "files": []}
    model |= changes.pop("model", {})
    return Prepared.model_validate(
        {
            "runId": "0" * 64,
            "model": model,
            "template": "Model",
            "chatTemplate": "",
            "stopTokenIds": [],
            "stopStrings": [],
            "totalSteps": 1,
            "dataset": {"examples": 1, "supervisedTokens": 1},
            "questions": [],
        }
        | changes
    )


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.model_validate(trainer_job.make(tmp_path, tmp_path).plan)


def guide(plan: Plan, files: Files = ALL, uri: str = "s3://models/run", **changes: Any) -> str:
    return text(plan, prepared(**changes), uri, files)


def test_every_file_has_its_command(plan: Plan) -> None:
    found = guide(plan)
    assert "cd gguf\nollama create coach -f Modelfile-Q8_0\nollama run coach" in found
    assert "llama-server -m gguf/coach-Q8_0.gguf --jinja -c 256" in found
    assert "~/.lmstudio/models/finetuned/coach/coach-Q8_0.gguf" in found
    assert "--lora gguf/coach-LoRA.gguf -c 256" in found
    assert "vllm serve ./merged --served-model-name coach" in found
    assert "--lora-modules coach=./adapter" in found


def test_what_to_do_where_ollama_refuses_is_reported(plan: Plan) -> None:
    assert "the first line of the Modelfile says so" in guide(plan)


def test_what_was_not_made_is_not_reported(plan: Plan) -> None:
    found = guide(plan, Files())
    assert "llama-server" not in found
    assert "merged" not in found


@pytest.mark.parametrize(("rank", "accepted"), [(4, 8), (16, 16), (17, 32), (257, 320)])
def test_vllm_gets_a_rank_that_it_accepts(plan: Plan, rank: int, accepted: int) -> None:
    lora = plan.training.lora.model_copy(update={"rank": rank})
    ranked = plan.model_copy(update={"training": plan.training.model_copy(update={"lora": lora})})
    assert f"--max-lora-rank {accepted} " in guide(ranked)


FETCHED: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"endpoint": "https://minio.corp:9000"}, " --endpoint-url https://minio.corp:9000"),
    (
        {"endpoint": "https://minio.corp:9000", "region": "seoul-1", "ca_file": "/etc/finetune/ca/ca.crt"},
        " --endpoint-url https://minio.corp:9000 --region seoul-1 --ca-bundle ca.crt",
    ),
]


@pytest.mark.parametrize(("members", "options"), FETCHED)
def test_a_bucket_is_fetched_from_the_server_of_the_job(plan: Plan, members: dict[str, Any], options: str) -> None:
    output = plan.output.model_copy(update={"path": None, "s3": S3Target(uri="s3://models/", **members)})
    found = guide(plan.model_copy(update={"output": output}))
    assert f"\naws s3 cp --recursive{options} s3://models/run coach\n" in found
    assert ("`ca.crt` is the certificate" in found) is ("ca_file" in members)


def test_a_folder_is_copied(plan: Plan) -> None:
    assert "\ncp -r /models/run coach\n" in guide(plan, uri="/models/run")


def test_a_base_in_4_bit_needs_bitsandbytes(plan: Plan) -> None:
    assert "bitsandbytes" in guide(plan, model={"storedIn4Bit": True})
    assert "bitsandbytes" not in guide(plan)


def test_the_adapter_as_gguf_belongs_to_the_original_weights(plan: Plan) -> None:
    original = prepared().model.model_copy(update={"reference": "org/in-16-bit"}).to_json()
    assert "a GGUF of the base model `org/in-16-bit`" in guide(plan, original=original)


def test_the_system_prompt_is_written_out(plan: Plan) -> None:
    assert "> 너는 코치다.\n> 짧게 답한다." in guide(plan, systemPrompt="너는 코치다.\n짧게 답한다.")
