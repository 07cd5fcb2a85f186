"""The order of an export: proven, uploaded, recorded, and nothing made twice."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import Plan
from finetune_api.spec import MergeBase
from finetune_trainer.errors import UnavailableError
from finetune_trainer.model import merge_base
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.store import Progress
from tests.support import export_job, trainer_job
from tests.support.export_job import QuickParts
from tests.support.trainer_job import TrainerJob

EXPORT: dict[str, Any] = {"gguf": ["F16", "Q4_K_M", "Q8_0"], "merged": True}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The folder of a trained job."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_SCRATCH", str(root / "scratch"))
        patch.setenv("FINETUNE_BUILD_ID", "test")
        patch.setenv("LLAMA_CPP_DIR", str(trainer_job.accepting_converter(root / "llama.cpp")))
        export_job.make(root, tiny, **EXPORT)
    return root


def ask_for(job: TrainerJob, **export: Any) -> None:
    """Change what the plan asks for, which the run id does not see: prepare is done."""
    job.plan["export"] = export


@pytest.fixture
def job(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerJob:
    shutil.copytree(template / "output", tmp_path / "output")
    plan = json.loads((template / "plan.json").read_text())
    plan["output"] = {"path": str(tmp_path / "output")}
    made = TrainerJob(tmp_path, plan)
    monkeypatch.setenv("FINETUNE_TERMINATION_LOG", str(made.termination_log))
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("FINETUNE_BUILD_ID", "test")
    return made


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickParts]:
    # A folder takes every file in one part.
    monkeypatch.setattr(export_job, "SIZES", {})
    with export_job.quick_parts() as installed:
        yield installed


def run_folder(job: TrainerJob) -> Path:
    (found,) = job.output.glob("gym/coach/*/prepared")
    return found.parent


def manifest(job: TrainerJob) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder(job) / "manifest.json").read_text())
    return found


def test_the_manifest_lists_every_file_with_its_checksum(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    folder = run_folder(job)
    found = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "manifest.json" and p.parent.name != "logs"
    }
    assert {f["path"]: f["sha256"] for f in manifest(job)["files"]} == found
    assert {"gguf/coach-Q8_0.gguf", "gguf/Modelfile-Q8_0", "gguf/chat_template.jinja", "SERVE.md"} <= found.keys()
    assert {"merged/model.safetensors", "merged/config.json", "merged/chat_template.jinja"} <= found.keys()


def test_all_types_come_from_one_conversion_and_each_is_proven(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    assert parts.calls == [
        "convert F16",
        "prove F16",
        *(f"{verb} {name}" for name in ("Q4_K_M", "Q8_0") for verb in ("quantize", "prove")),
    ]


def test_small_types_are_made_with_one_importance_matrix(job: TrainerJob, parts: QuickParts) -> None:
    ask_for(job, gguf=["Q8_0", "IQ3_M", "IQ2_M"])
    assert job.run("export") == 0
    assert parts.calls.count("importance") == 1
    assert parts.calls.index("importance") > parts.calls.index("prove Q8_0")


def test_the_adapter_s_own_file_is_proven_on_the_base(job: TrainerJob, parts: QuickParts) -> None:
    ask_for(job, gguf=[], loraGGUF=True)
    assert job.run("export") == 0
    assert parts.calls == ["convert LoRA", "convert F16", "prove LoRA"]
    (artifact,) = job.result()["artifacts"]
    assert (artifact["type"], artifact["path"]) == ("LoRAGGUF", "gguf/coach-LoRA.gguf")
    assert artifact["parity"]["kl"] == "0.0012"
    parts.calls.clear()
    assert job.run("export") == 0
    assert parts.calls == []


def test_a_rejected_adapter_file_is_kept_and_the_others_are_published(job: TrainerJob, parts: QuickParts) -> None:
    ask_for(job, gguf=["F16"], loraGGUF=True)
    parts.refused.add("LoRA")
    assert job.run("export") == 0
    assert (run_folder(job) / "rejected/coach-LoRA.gguf").stat().st_size == export_job.OTHER_SIZE
    artifacts = {a["name"]: a for a in job.result()["artifacts"]}
    assert "leave out export.loraGGUF" in artifacts["LoRA"]["rejected"]
    assert "rejected" not in artifacts["F16"]


def test_only_the_adapter_needs_no_weights_at_all(job: TrainerJob, parts: QuickParts) -> None:
    ask_for(job, gguf=[])
    assert job.run("export") == 0
    assert parts.calls == []
    assert not (run_folder(job) / "gguf").exists()
    assert "merge" not in job.result()["timings"]


def test_the_page_of_the_run_is_listed(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    assert "report.html" in {f["path"] for f in manifest(job)["files"]}
    page = (run_folder(job) / "report.html").read_text()
    assert "coach-Q8_0.gguf" in page


def test_the_figures_of_the_proof_are_with_the_artifact(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    by_name = {a["name"]: a for a in job.result()["artifacts"]}
    proof = {"kl": "0.0012", "top1": "0.9877", "retainedGain": "1.0000"}
    assert [by_name[name]["parity"] for name in ("F16", "Q4_K_M", "Q8_0", "Merged")] == [proof] * 4
    listed = {a["name"]: a.get("parity") for a in manifest(job)["artifacts"]}
    assert listed["Q4_K_M"] == proof
    report = json.loads((run_folder(job) / "report.json").read_text())
    assert {a["name"]: a.get("parity") for a in report["export"]["artifacts"]} == listed
    assert report["export"]["limits"].keys() == {"F16", "Q4_K_M", "Q8_0", "Merged"}


def test_the_report_tells_how_long_each_part_took(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    found = json.loads((run_folder(job) / "report.json").read_text())["timings"]
    assert found.keys() == {"prepare", "merge", "convert", "quantize", "prove", "answer", "export"}


def test_the_merged_model_is_one_artifact_with_a_list_of_checksums(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    artifact = next(a for a in job.result()["artifacts"] if a["type"] == "MergedModel")
    folder = run_folder(job) / "merged"
    text = (folder / "SHA256SUMS").read_bytes()
    assert artifact["path"] == "merged/"
    assert artifact["sha256"] == hashlib.sha256(text).hexdigest()
    assert artifact["sizeBytes"] == sum(p.stat().st_size for p in folder.iterdir())
    listed = dict(reversed(line.split("  ")) for line in text.decode().splitlines())
    assert listed == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "SHA256SUMS"
    }


def test_answers_of_every_file_are_beside_those_of_the_model(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    content = json.loads((run_folder(job) / "answers.json").read_text())
    assert [q["gguf"]["Q8_0"] for q in content["questions"]] == [f"Q8_0.gguf: {t}" for t in export_job.QUESTIONS]


def test_a_finished_export_makes_nothing_again(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    first = manifest(job)["artifacts"]
    parts.calls.clear()
    assert job.run("export") == 0
    assert parts.calls == []
    assert manifest(job)["artifacts"] == first


def test_a_retry_makes_only_what_is_missing_or_has_another_size(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    (run_folder(job) / "gguf/coach-Q4_K_M.gguf").write_bytes(b"cut")
    parts.calls.clear()
    assert job.run("export") == 0
    # The source is needed, and run once more, to hold the other against what it predicts.
    assert parts.calls == ["convert F16", "quantize Q4_K_M", "prove F16", "prove Q4_K_M"]
    assert (run_folder(job) / "gguf/coach-Q4_K_M.gguf").stat().st_size == export_job.OTHER_SIZE


def test_another_trainer_makes_its_own_files(
    job: TrainerJob, parts: QuickParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.run("export") == 0
    parts.calls.clear()
    monkeypatch.setenv("FINETUNE_BUILD_ID", "another")
    assert job.run("export") == 0
    assert "quantize Q8_0" in parts.calls


def test_a_rejected_file_is_kept_with_its_figures_and_the_others_are_published(
    job: TrainerJob, parts: QuickParts
) -> None:
    parts.refused.add("Q4_K_M")
    assert job.run("export") == 0
    folder = run_folder(job)
    (found,) = [a for a in job.result()["artifacts"] if "rejected" in a]
    assert (found["name"], found["path"]) == ("Q4_K_M", "rejected/coach-Q4_K_M.gguf")
    assert "replace Q4_K_M in export.gguf with Q8_0" in found["rejected"]
    assert (folder / found["path"]).stat().st_size == found["sizeBytes"] == export_job.OTHER_SIZE
    assert json.loads((folder / "rejected/coach-Q4_K_M.gguf.json").read_text())["figures"]["top1"] == 0.98765
    assert not (folder / "gguf/coach-Q4_K_M.gguf").exists()
    assert not (folder / "gguf/Modelfile-Q4_K_M").exists()
    assert "Q4_K_M" not in (folder / "SERVE.md").read_text()
    listed = {f["path"] for f in manifest(job)["files"]}
    assert {"rejected/coach-Q4_K_M.gguf", "rejected/coach-Q4_K_M.gguf.json", "gguf/coach-Q8_0.gguf"} <= listed
    parts.calls.clear()
    assert job.run("export") == 0
    assert parts.calls == []


def test_what_is_made_of_a_rejected_file_is_rejected_with_it_and_the_stage_fails(
    job: TrainerJob, parts: QuickParts
) -> None:
    parts.refused.add("F16")
    assert job.run("export") == 66
    assert "the F16 file is not the model that was trained" in job.result()["message"]
    rejected = {a["name"]: a["path"] for a in manifest(job)["artifacts"] if "rejected" in a}
    assert rejected == dict.fromkeys(["F16", "Q4_K_M", "Q8_0", "Merged"], "rejected/coach-F16.gguf")
    assert not (run_folder(job) / "merged").exists()
    assert (run_folder(job) / "report.html").exists()


def test_a_failed_export_that_is_tried_again_makes_its_files_again(job: TrainerJob, parts: QuickParts) -> None:
    parts.refused.add("F16")
    assert job.run("export") == 66
    parts.refused.clear()
    assert job.run("export") == 0
    assert not any("rejected" in a for a in manifest(job)["artifacts"])
    assert not list((run_folder(job) / "rejected").iterdir())


def test_what_an_earlier_attempt_left_is_gone_when_the_run_is_complete(job: TrainerJob, parts: QuickParts) -> None:
    folder = run_folder(job)
    for name in ("gguf/coach-Q2_K.gguf", "merged/model-00001-of-00002.safetensors", "rejected/coach-Q8_0.gguf"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"old")
    assert job.run("export") == 0
    assert [p for p in folder.rglob("*") if p.is_file() and p.read_bytes() == b"old"] == []


def test_the_next_file_is_made_while_one_is_uploaded(
    job: TrainerJob, parts: QuickParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file, quantizing = FileStore.put_file, threading.Event()

    def slow(self: FileStore, key: str, path: Path, progress: Progress | None = None) -> None:
        if key.endswith("coach-Q4_K_M.gguf"):
            assert quantizing.wait(60), "Q8_0 is made only after the upload of Q4_K_M"
        put_file(self, key, path, progress)

    def check(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "Q8_0 file":
            quantizing.set()
        return parts._check(name, *arguments, **more)

    monkeypatch.setattr(FileStore, "put_file", slow)
    monkeypatch.setattr("finetune_trainer.export.parity.check.check", check)
    assert job.run("export") == 0


def test_a_failed_upload_ends_the_stage_with_its_own_code(
    job: TrainerJob, parts: QuickParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file = FileStore.put_file

    def broken(self: FileStore, key: str, path: Path, progress: Progress | None = None) -> None:
        if key.endswith("Q4_K_M.gguf"):
            raise UnavailableError("the server is away")
        put_file(self, key, path, progress)

    monkeypatch.setattr(FileStore, "put_file", broken)
    assert job.run("export") == 69
    assert job.result()["message"] == "the server is away"
    assert not (run_folder(job) / "manifest.json").exists()


def test_the_scratch_space_is_empty_after_it(job: TrainerJob, parts: QuickParts) -> None:
    assert job.run("export") == 0
    assert list((job.root / "scratch").iterdir()) == []


def test_every_file_is_hashed_once(job: TrainerJob, parts: QuickParts, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def spy(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    for module in ("stage", "files"):
        monkeypatch.setattr(f"finetune_trainer.export.{module}.sha256_of", spy)
    assert job.run("export") == 0
    assert {"F16.gguf", "Q8_0.gguf", "adapter_model.safetensors"} <= {path.name for path in hashed}
    assert len(hashed) == len(set(hashed))


def test_the_weights_of_the_adapter_are_downloaded_once(
    job: TrainerJob, parts: QuickParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_file, keys = FileStore.get_file, list[str]()

    def spy(self: FileStore, key: str, path: Path, progress: Progress | None = None) -> None:
        keys.append(key)
        get_file(self, key, path, progress)

    monkeypatch.setattr(FileStore, "get_file", spy)
    assert job.run("export") == 0
    assert [key.endswith("/adapter/adapter_model.safetensors") for key in keys].count(True) == 1


def test_what_the_adapter_is_merged_into_is_decided_once(
    tmp_path: Path, tiny: Path, parts: QuickParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, asked = merge_base.choose, list[Plan]()

    def spy(plan: Plan, *, stored_in_4bit: bool) -> MergeBase | None:
        asked.append(plan)
        return choose(plan, stored_in_4bit=stored_in_4bit)

    monkeypatch.setattr(merge_base, "choose", spy)
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("LLAMA_CPP_DIR", str(trainer_job.accepting_converter(tmp_path / "llama.cpp")))
    made = export_job.make(tmp_path, tiny, gguf=["Q8_0"])
    assert made.run("export") == 0
    report = json.loads((run_folder(made) / "report.json").read_text())
    assert (report["export"]["mergeBase"], len(asked)) == ("Original", 1)


def test_an_export_that_left_something_out_is_a_fault_of_the_trainer(
    job: TrainerJob, parts: QuickParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.export.stage._Export.make", lambda _: None)
    assert job.run("export") == 70
    assert job.result()["message"].startswith("export ended without F16, which the plan asks for; this is a fault")
    assert not (run_folder(job) / "manifest.json").exists()
