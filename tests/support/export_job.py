"""A trained job without training: what export reads, with a real adapter, and quick parts for what takes long."""

import hashlib
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.result import StageResult
from finetune_api.status import Artifact
from finetune_trainer.evaluation.reference import Prompt, Reference
from finetune_trainer.export.exact import gguf_weights, lora_tensors
from finetune_trainer.export.gguf import check as gguf_check
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import imatrix
from finetune_trainer.export.gguf import lora as lora_gguf
from finetune_trainer.export.parity import check as parity_check
from finetune_trainer.export.parity.figures import Figures
from finetune_trainer.export.records import GGUFAnswer
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.storage.folder import FileStore
from tests.support import trainer_job
from tests.support.trainer_job import TrainerJob

LAYOUT = JobLayout("gym", "coach", "11111111-2222")
QUESTIONS = ("스쿼트?", "푸시업?")
RANK = 4
MIB = 1024 * 1024
# More than one part of an upload; the others are one.
SIZES = {"F16": 34 * MIB}
OTHER_SIZE = 2 * MIB
_WRITES = 6


def make(root: Path, model: Path, **export: Any) -> TrainerJob:
    """Return a job whose output folder has what prepare and train leave; `export` is of the plan."""
    job = trainer_job.make(root, model)
    job.plan["model"]["quantization"] = "None"
    job.plan["evaluation"]["prompts"] = list(QUESTIONS)
    job.plan["export"] = export
    assert job.run("prepare") == 0
    store = FileStore(job.output)
    data = store.get_bytes(LAYOUT.result("prepare"))
    assert data is not None
    run_id = StageResult.model_validate_json(data).run_id
    assert run_id is not None
    folder = LAYOUT.run(run_id)
    weights = _put_adapter(store, f"{folder}/adapter", json.loads((model / "config.json").read_text()))
    prompts = [Prompt(text=text, input_ids=[1]) for text in QUESTIONS]
    reference = Reference(prompts=prompts, rows=[])
    store.put_bytes(f"{folder}/prepared/reference.json", reference.model_dump_json(by_alias=True).encode())
    questions = [{"prompt": text, "base": "a", "tuned": "b"} for text in QUESTIONS]
    store.put_bytes(f"{folder}/answers.json", json.dumps({"questions": questions}).encode())
    trained = StageResult(stage="train", exit_code=0, run_id=run_id, artifacts=[weights])
    store.put_bytes(LAYOUT.result("train"), trained.model_dump_json(by_alias=True, exclude_none=True).encode())
    return job


def _put_adapter(store: FileStore, folder: str, config: dict[str, Any]) -> Artifact:
    import numpy as np
    from safetensors.numpy import save

    numbers = np.random.default_rng(1)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    hidden = config["hidden_size"]
    weights = save(
        {
            f"{module}.lora_A.weight": numbers.standard_normal((RANK, hidden)).astype(np.float32),
            f"{module}.lora_B.weight": numbers.standard_normal((hidden, RANK)).astype(np.float32),
        }
    )
    settings = {"r": RANK, "lora_alpha": 8, "target_modules": ["q_proj"], "peft_type": "LORA"}
    store.put_bytes(f"{folder}/adapter_config.json", json.dumps(settings).encode())
    store.put_bytes(f"{folder}/adapter_model.safetensors", weights)
    return Artifact(
        name="adapter",
        type="LoRAAdapter",
        path="adapter",
        size_bytes=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )


@dataclass
class QuickParts:
    """Stands for llama.cpp: files that depend on what they were made of, and proofs that hold unless `refused`."""

    refused: set[str] = field(default_factory=set)
    # Of writing one file.
    seconds: float = 0.0
    # Everything that was done, in order.
    calls: list[str] = field(default_factory=list)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the parts."""
        patch.setattr(gguf_convert, "convert", self._convert)
        patch.setattr(gguf_convert, "quantize", self._quantize)
        patch.setattr(gguf_check, "check", lambda *_, **__: None)
        patch.setattr(lora_gguf, "convert", self._convert_lora)
        patch.setattr(imatrix, "compute", self._importance)
        patch.setattr(parity_check, "check", self._check)
        patch.setattr(parity_check, "answers", self._answers)
        for proof in (gguf_weights, lora_tensors):
            patch.setattr(proof, "check", lambda *_: [])

    def _convert(self, model: Path, target: Path, gguf_type: str, *_: Any, **__: Any) -> None:
        self.calls.append(f"convert {gguf_type}")
        self._write(target, gguf_type, (model / "model.safetensors").read_bytes())

    def _quantize(self, source: Path, target: Path, gguf_type: str, *_: Any, **__: Any) -> None:
        self.calls.append(f"quantize {gguf_type}")
        self._write(target, gguf_type, source.read_bytes())

    def _convert_lora(self, base: Path, adapter: Path, target: Path, *_: Any, **__: Any) -> None:
        self.calls.append("convert LoRA")
        self._write(target, "LoRA", (adapter / "adapter_model.safetensors").read_bytes())

    def _importance(self, source: Path, rows: list[list[int]], *_: Any, **__: Any) -> str:
        assert rows
        self.calls.append("importance")
        return "an importance matrix"

    def _write(self, target: Path, gguf_type: str, made_of: bytes) -> None:
        seed = hashlib.sha256(gguf_type.encode() + made_of).hexdigest()
        data = random.Random(seed).randbytes(SIZES.get(gguf_type, OTHER_SIZE))
        step = -(-len(data) // _WRITES)
        # As the real ones do: the next attempt continues with what has its name.
        with gguf_convert.written_whole(target) as partial, partial.open("wb") as file:
            for start in range(0, len(data), step):
                file.write(data[start : start + step])
                time.sleep(self.seconds / _WRITES)

    def _check(self, name: str, path: Path, reference: Reference, *_: Any, **__: Any) -> tuple[Figures, Reference]:
        gguf_type = name.split()[0] if name != "LoRA GGUF" else "LoRA"
        self.calls.append(f"prove {gguf_type}")
        if gguf_type in self.refused:
            raise RejectedFile(f"the {name} is not the model that was trained", {"top1": 0.98765})
        figures = Figures(
            top1=0.98765,
            nll=2.0,
            nll_base=3.0,
            nll_model=2.0,
            nll_own_base=3.0,
            kl=0.00123,
            tokens=400,
            error=0.1,
            gain_error=0.1,
            own_gain_error=0.1,
        )
        return figures, reference

    def _answers(self, path: Path, prompts: list[Prompt], *_: Any, **__: Any) -> list[GGUFAnswer]:
        return [GGUFAnswer(text=f"{path.name}: {prompt.text}", stopped=True) for prompt in prompts]


@contextmanager
def quick_parts(**settings: Any) -> Iterator[QuickParts]:
    """Replace the parts inside."""
    with pytest.MonkeyPatch.context() as patch:
        parts = QuickParts(**settings)
        parts.install(patch)
        yield parts
