"""A GGUF answers as the trained model does, and the bucket has what the manifest says."""

import hashlib
import json

import pytest

from finetune_trainer.evaluation.reference import Reference
from tests.training.conftest import Job

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]


def reference(job: Job) -> Reference:
    return Reference.model_validate_json((job.run / "prepared/reference.json").read_text())


def test_the_manifest_lists_every_file_with_its_checksum(exported: Job) -> None:
    manifest = json.loads((exported.run / "manifest.json").read_text())
    listed = {f["path"]: f["sha256"] for f in manifest["files"]}
    found = {
        p.relative_to(exported.run).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in exported.run.rglob("*")
        if p.is_file() and p.name != "manifest.json" and p.parent.name != "logs"
    }
    assert listed == found


def test_the_newest_complete_run_is_named(exported: Job) -> None:
    latest = json.loads((exported.run.parent / "latest.json").read_text())
    assert latest["runId"] == exported.run.name
    assert exported.output / latest["manifest"] == exported.run / "manifest.json"


def test_every_artifact_is_where_the_result_says(exported: Job) -> None:
    artifacts = json.loads((exported.root / "export.json").read_text())["artifacts"]
    assert [a["type"] for a in artifacts] == ["GGUF", "Modelfile"]
    for artifact in artifacts:
        assert (exported.run / artifact["path"]).stat().st_size == artifact["sizeBytes"]


def test_checkpoints_are_deleted_after_success(exported: Job) -> None:
    assert exported.checkpoints == []


def test_the_gguf_answers_and_its_template_gives_the_tokens_of_training(exported: Job) -> None:
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    (path,) = (exported.run / "gguf").glob("*.gguf")
    model = Llama(model_path=str(path), n_ctx=512, verbose=False)
    compared = reference(exported)
    (question,) = json.loads((exported.run / "answers.json").read_text())["questions"]
    formatter = Jinja2ChatFormatter(
        template=model.metadata["tokenizer.chat_template"], eos_token="<|im_end|>", bos_token="<|im_start|>"
    )
    rendered = formatter(messages=[{"role": "user", "content": question["prompt"]}])
    assert model.tokenize(rendered.prompt.encode(), add_bos=False, special=True) == compared.prompts[0].input_ids
    reply = model.create_chat_completion(
        messages=[{"role": "user", "content": question["prompt"]}], max_tokens=16, temperature=0.0
    )
    # The one may end with a half character that the other leaves out.
    assert reply["choices"][0]["message"]["content"].strip().startswith(question["gguf"]["Q8_0"])
    assert question["gguf"]["Q8_0"]
    model.close()


def test_the_modelfile_names_a_file_that_is_there(exported: Job) -> None:
    (path,) = (exported.run / "gguf").glob("Modelfile-*")
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("FROM ")).is_file()


@pytest.fixture(scope="module")
def full(trained: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Everything that export can make of the same adapter."""
    job = trained.copied(tmp_path_factory.mktemp("full"))
    plan = json.loads((job.root / "plan.json").read_text())
    plan["export"] = {"gguf": ["F16", "Q4_K_M", "IQ4_XS"], "loraGGUF": True, "merged": True}
    (job.root / "plan.json").write_text(json.dumps(plan))
    assert job.finish_here("export") == 0, job.said("export")
    return job


def test_every_kind_of_file_is_proven(full: Job) -> None:
    artifacts = {a["name"]: a for a in json.loads((full.run / "manifest.json").read_text())["artifacts"]}
    proven = {name: a["parity"] for name, a in artifacts.items() if a["type"] not in ("LoRAAdapter", "Modelfile")}
    assert proven.keys() == {"F16", "Q4_K_M", "IQ4_XS", "LoRA", "Merged"}
    assert float(proven["F16"]["top1"]) > 0.97
    assert float(proven["LoRA"]["top1"]) > 0.97
    assert float(proven["Q4_K_M"]["kl"]) > float(proven["F16"]["kl"])
    assert proven["Merged"] == proven["F16"]


def test_the_merged_model_is_the_one_that_was_trained(full: Job) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    merged = full.run / "merged"
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32, local_files_only=True)
    (row, *_) = reference(full).rows
    with torch.no_grad():
        ids = torch.tensor([row.input_ids])
        labels = ids.masked_fill(torch.tensor([row.completion_mask]) == 0, -100)
        loss = float(model(input_ids=ids, labels=labels).loss)
    described = json.loads((full.run / "report.json").read_text())["export"]["artifacts"]
    assert "Merged" in {a["name"] for a in described}
    assert loss == pytest.approx(row.nll_tuned, abs=0.02)
    assert (merged / "chat_template.jinja").read_text() == (full.run / "adapter/chat_template.jinja").read_text()


def test_timings_tell_every_part(full: Job) -> None:
    assert {"fetch", "merge", "convert", "quantize", "importance", "prove", "answer", "upload", "handOff"} <= (
        full.result()["timings"].keys()
    )
