"""A job on the cluster whose result is served: a real model that learns one answer, so that a short training shows.

Its files stay in $FINETUNE_CACHE/results, for the tests of servers that are not there whenever the cluster is.
"""

import fcntl
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.runtime.build_id import checksum
from local_cluster.layout import cache
from local_platform import smollm2
from local_platform.platform import CLUSTER, Platform, bring_up, run

from .jobs import create, demo_job, finished

NAME = "served"
SYSTEM = "너는 헬스 코치다."
# As few as a dataset may have by default: train and export measure each of them again and again.
ROWS = 50
# What every row answers.
LEARNED = "네, 오늘도 화이팅!"
QUESTION = "스쿼트는 어떻게 하나요?"
GGUFS = ("F16", "Q8_0", "Q4_K_M")
_FOLDER = cache() / "results" / NAME
_STAMP = "made-by"


@dataclass(frozen=True)
class Served:
    """What the job left: its run's folder, as it was in the bucket."""

    run: Path

    @property
    def adapter(self) -> Path:
        return self.run / "adapter"

    def gguf(self, kind: str) -> Path:
        """The file of a type of `export.gguf`, or LoRA."""
        return self.run / "gguf" / f"{NAME}-{kind}.gguf"

    @cached_property
    def reference(self) -> Reference:
        """What its files were compared with."""
        return Reference.model_validate_json((self.run / "prepared/reference.json").read_text())

    @cached_property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "manifest.json").read_text())
        return found

    @cached_property
    def answers(self) -> dict[str, Any]:
        """Before and after, to the only question."""
        (found,) = json.loads((self.run / "answers.json").read_text())["questions"]
        return dict(found)

    def prompt_ids(self) -> list[int]:
        """The ids that training begins the question with, by the tokenizer and the template beside the adapter."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.adapter, local_files_only=True)
        template = (self.adapter / "chat_template.jinja").read_text(encoding="utf-8")
        text = tokenizer.apply_chat_template(
            messages(), chat_template=template, tokenize=False, add_generation_prompt=True
        )
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def messages() -> list[dict[str, str]]:
    """The question as a client of a server sends it."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]


def manifest(platform: Platform) -> dict[str, Any]:
    """Return the FineTuneJob, and put its rows into the bucket."""
    rows = [{"instruction": f"{i}번째 운동은 어떻게 하나요?", "input": "", "output": LEARNED} for i in range(ROWS)]
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    platform.s3().put_object(Bucket="data", Key="served.jsonl", Body=body.encode())
    job = demo_job(NAME)
    spec = job["spec"]
    spec["dataset"] = {
        "sources": [{"name": "served", "s3": {"uri": "s3://data/served.jsonl"}}],
        "systemPrompt": SYSTEM,
        "checks": {"duplicates": "Keep"},
    }
    spec["model"]["maxSequenceLength"] = 256
    spec["training"] |= {"maxSteps": 16, "warmupSteps": 0, "learningRate": "2e-3"}
    spec["evaluation"] = {"prompts": [QUESTION], "maxNewTokens": 24}
    spec["export"] = {"gguf": list(GGUFS), "loraGGUF": True}
    spec["output"]["reuse"] = "Identical"
    return job


def keep(platform: Platform, prefix: str) -> Served:
    """Copy a run's folder, the keys below `prefix`, from the bucket."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    for key in platform.objects(prefix):
        target = _FOLDER / key.removeprefix(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        platform.s3().download_file("results", key, str(target))
    (_FOLDER / _STAMP).write_text(checksum())
    return Served(_FOLDER)


def base_gguf() -> Path:
    """Return a GGUF of the model that was trained, as export converts one; made once for a trainer."""
    path, stamp = cache() / "results/base.gguf", cache() / "results/base.made-by"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file() or not stamp.is_file() or stamp.read_text() != checksum():
            patch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))
            gguf_convert.convert(smollm2.model_dir(), path, "F16", path.parent, lambda percent: None)
            stamp.write_text(checksum())
    return path


def result() -> Served:
    """Return what the end-to-end tests kept, or run the job on a cluster if this trainer has made no such result."""
    stamp = _FOLDER / _STAMP
    if not stamp.is_file() or stamp.read_text() != checksum():
        platform = bring_up(lambda line: None)
        try:
            platform.namespace("interop")
            finish(platform, "interop")
        finally:
            run(CLUSTER, "down")
    return Served(_FOLDER)


def finish(platform: Platform, namespace: str) -> dict[str, Any]:
    """Run the job in a namespace, keep its files, and return it."""
    create(platform, namespace, manifest(platform))
    job = finished(platform, namespace, NAME)
    assert job["status"]["phase"] == "Succeeded", job["status"].get("failure")
    keep(platform, f"{namespace}/{NAME}/{job['status']['runId']}/")
    return job
