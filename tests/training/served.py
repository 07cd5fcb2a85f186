"""A job whose result is served: a real model, stored in 4 bit, that learns one answer, so that a short training shows.

Its files stay in $FINETUNE_CACHE/results, for the tests with servers of third parties.
"""

import fcntl
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.runtime.build_id import checksum
from local_cluster.layout import cache
from local_platform import smollm2
from tests.support import trainer_job

from .conftest import Job, complete

SYSTEM = "너는 헬스 코치다."
# Train and export measure each of them again and again.
ROWS = 14
# What every row answers.
LEARNED = "네, 오늘도 화이팅!"
QUESTION = "스쿼트는 어떻게 하나요?"
GGUFS = ("F16", "Q8_0", "Q4_K_M")
_FOLDER = cache() / "results/served"
_STAMP = "made-by"


@dataclass(frozen=True)
class Served:
    """What the job left."""

    job: Job

    @property
    def run(self) -> Path:
        return self.job.run

    @property
    def adapter(self) -> Path:
        return self.run / "adapter"

    def gguf(self, kind: str) -> Path:
        """The file of a type of `export.gguf`, or LoRA."""
        (found,) = (self.run / "gguf").glob(f"*-{kind}.gguf")
        return found

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


def in_4bit(folder: Path) -> Path:
    """Store the real model as bitsandbytes does, with nested quantization."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        smollm2.model_dir(), quantization_config=settings, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
    for path in smollm2.model_dir().iterdir():
        if not (folder / path.name).exists() and path.suffix != ".safetensors":
            shutil.copy(path, folder)
    return folder


def _plan(root: Path, model: Path) -> dict[str, Any]:
    rows = [{"instruction": f"{i}번째 운동은 어떻게 하나요?", "input": "", "output": LEARNED} for i in range(ROWS)]
    plan = trainer_job.make(root, model, rows).plan
    complete(plan, 0.0, {"maxSteps": 7, "checkpointSteps": 7, "learningRate": 1e-3, "warmupSteps": 0})
    plan["training"]["lora"] |= {"useRSLoRA": True, "rank": 16, "alpha": 16}
    plan["model"]["quantization"] = "NF4"
    plan["dataset"] |= {"systemPrompt": SYSTEM, "duplicates": "Keep", "minimumExamples": ROWS}
    plan["evaluation"] = {"prompts": [QUESTION], "maxNewTokens": 24}
    plan["export"] = {"gguf": list(GGUFS), "loraGGUF": True, "original": {"path": str(smollm2.model_dir())}}
    return plan


def result() -> Served:
    """Return what the job left, and run it first if this trainer has not run it yet."""
    stamp, job = _FOLDER / _STAMP, Job(_FOLDER)
    # The plan is made here.
    made_by = checksum() + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with _FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != made_by:
            shutil.rmtree(_FOLDER, ignore_errors=True)
            _FOLDER.mkdir()
            model = in_4bit(_FOLDER / "model")
            (_FOLDER / "plan.json").write_text(json.dumps(_plan(_FOLDER, model)))
            for stage in ("prepare", "train", "export"):
                assert job.finish(stage) == 0, job.said(stage)
            stamp.write_text(made_by)
    return Served(job)


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
