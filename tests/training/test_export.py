"""A GGUF answers as the trained model does, and the bucket has what the manifest says."""

import hashlib
import json
from collections import Counter

import pytest

from finetune_api.result import StageResult
from finetune_trainer.evaluation.reference import Reference
from tests.training.conftest import GGUFS, Job

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


def result(job: Job) -> StageResult:
    """What export reported: so many files that the list is packed."""
    return StageResult.of_termination_message((job.root / "export.json").read_bytes())


def test_every_artifact_is_where_the_result_says(exported: Job) -> None:
    artifacts = result(exported).artifacts
    wanted = {"GGUF": len(GGUFS), "Modelfile": len(GGUFS), "LoRAGGUF": 1, "MergedModel": 1}
    assert Counter(a.type for a in artifacts) == wanted
    for artifact in artifacts:
        path = exported.run / artifact.path
        files = path.rglob("*") if path.is_dir() else [path]
        assert sum(file.stat().st_size for file in files) == artifact.size_bytes


def test_checkpoints_are_deleted_after_success(exported: Job) -> None:
    assert exported.checkpoints == []


def test_the_gguf_answers_and_its_template_gives_the_tokens_of_training(exported: Job) -> None:
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    (path,) = (exported.run / "gguf").glob("*-Q8_0.gguf")
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


def test_each_modelfile_names_the_file_of_its_type(exported: Job) -> None:
    found = {path.name: path for path in (exported.run / "gguf").glob("Modelfile-*")}
    assert found.keys() == {f"Modelfile-{gguf_type}" for gguf_type in GGUFS}
    for name, path in found.items():
        first = path.read_text().splitlines()[0]
        assert (path.parent / first.removeprefix("FROM ")).is_file()
        assert first.endswith(f"{name.removeprefix('Modelfile-')}.gguf")


def test_every_kind_of_file_is_proven(exported: Job) -> None:
    artifacts = {a["name"]: a for a in json.loads((exported.run / "manifest.json").read_text())["artifacts"]}
    proven = {name: a["parity"] for name, a in artifacts.items() if a["type"] not in ("LoRAAdapter", "Modelfile")}
    assert proven.keys() == {"F16", "Q8_0", "Q4_K_M", "IQ4_XS", "LoRA", "Merged"}
    assert float(proven["F16"]["top1"]) > 0.97
    assert float(proven["LoRA"]["top1"]) > 0.97
    assert float(proven["Q4_K_M"]["kl"]) > float(proven["F16"]["kl"])
    assert proven["Merged"] == proven["F16"]


def test_the_merged_model_is_the_one_that_was_trained(exported: Job) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    merged = exported.run / "merged"
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32, local_files_only=True)
    (row, *_) = reference(exported).rows
    with torch.no_grad():
        ids = torch.tensor([row.input_ids])
        labels = ids.masked_fill(torch.tensor([row.completion_mask]) == 0, -100)
        loss = float(model(input_ids=ids, labels=labels).loss)
    described = json.loads((exported.run / "report.json").read_text())["export"]["artifacts"]
    assert "Merged" in {a["name"] for a in described}
    assert loss == pytest.approx(row.nll_tuned, abs=0.02)
    assert (merged / "chat_template.jinja").read_text() == (exported.run / "adapter/chat_template.jinja").read_text()


def test_timings_tell_every_part(exported: Job) -> None:
    assert {"fetch", "merge", "convert", "quantize", "importance", "prove", "answer", "upload", "handOff"} <= (
        result(exported).timings.keys()
    )
