"""The export stage: merge, convert, compare, hand over."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.exit_codes import ExitCode
from finetune_api.layout import MANIFEST, join_uri
from finetune_api.progress import Activity
from finetune_api.result import StageResult
from finetune_api.spec import GGUFType
from finetune_api.status import Artifact
from finetune_trainer import (
    adapter,
    gguf,
    manifest,
    merge,
    ollama,
    outcome,
    parity,
    prepared,
    reference,
    reuse,
    serve_guide,
)
from finetune_trainer.checkpoints import sha256_of
from finetune_trainer.context import Context
from finetune_trainer.data import template
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.evaluation import ANSWERS
from finetune_trainer.fetch import fetch_weights
from finetune_trainer.manifest import Manifest
from finetune_trainer.prepared import Prepared
from finetune_trainer.reference import Reference

_FOLDER = "gguf"
_GUIDE = "SERVE.md"


def run(context: Context) -> StageResult:
    """Make what the plan asks for of the trained adapter, then the manifest.

    Raises:
        StageError: nothing is published that is not what was trained.
    """
    return _Export(context).run()


@dataclass
class _Published:
    """What was uploaded so far."""

    artifacts: list[Artifact] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)
    parity: dict[str, dict[str, float | None]] = field(default_factory=dict)
    ggufs: list[tuple[str, str]] = field(default_factory=list)
    modelfiles: list[str] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)


class _Export:
    """One attempt: what its parts share, and how long each took."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.plan = context.plan
        self.prepared: Prepared = outcome.read_prepared(context)
        self.trained = outcome.read(context, "train")
        if self.trained.run_id != self.prepared.run_id:
            raise SettingsError("train has not finished for the data that prepare made last; run train again")
        self.folder = context.layout.run(self.prepared.run_id)
        self.published = _Published()
        self.timings: dict[str, float] = {}

    def run(self) -> StageResult:
        """From the adapter to the manifest."""
        # A retry replaces files, so what an earlier attempt may have completed is not complete now.
        self.context.store.delete(f"{self.folder}/{MANIFEST}")
        if self.plan.export.gguf:
            self._export_gguf()
        with self._timed("handOff"):
            self._hand_off()
        self.context.store.delete(self.context.layout.checkpoints)
        return StageResult(
            stage="export",
            exit_code=ExitCode.OK,
            run_id=self.prepared.run_id,
            artifacts=self.published.artifacts,
            timings={name: round(seconds, 1) for name, seconds in self.timings.items()},
        )

    def _export_gguf(self) -> None:
        with self._timed("fetch"):
            base = fetch_weights(self.context, self.prepared.model)
            adapter_folder = self._download_adapter()
            compared = self._read_reference()
        merged = self.context.scratch / "merged"
        with self._timed("merge"):
            merge.merge(base, adapter_folder, merged, lambda percent: self._report("Merging", percent))
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        modelfile = self._modelfile(tokenizer)
        for gguf_type, path in self._files(merged):
            self._report("Proving")
            with self._timed("prove"):
                figures = parity.check(
                    path, gguf_type, compared, tokenizer.bos_token, self.plan.model.quantization == "NF4"
                )
            if gguf_type not in self.plan.export.gguf:
                continue
            with self._timed("answer"):
                self.published.parity[gguf_type] = {
                    "top1": round(figures.top1, 4),
                    "loss": round(figures.nll, 4),
                    "lossBase": round(figures.nll_base, 4),
                    "lossTuned": round(figures.nll_tuned, 4),
                    "retainedGain": None if figures.retained_gain is None else round(figures.retained_gain, 4),
                }
                self.published.answers[gguf_type] = parity.answers(
                    path, compared.prompts, self.prepared.stop_token_ids, self.plan.evaluation.max_new_tokens
                )
            with self._timed("upload"):
                self._publish(gguf_type, path, modelfile)

    def _files(self, merged: Path) -> Iterator[tuple[GGUFType, Path]]:
        """Make the files one after another. F16 comes first, asked for or not: the others are quantized from it."""
        wanted = self.plan.export.gguf
        source = self.context.scratch / "F16.gguf"
        converted: list[GGUFType] = ["F16", "BF16"] if "BF16" in wanted else ["F16"]
        for gguf_type in converted:
            path = self.context.scratch / f"{gguf_type}.gguf"
            with self._timed("convert"):
                self._report("Converting")
                gguf.convert(merged, path, gguf_type, self.context.scratch)
            yield gguf_type, path
        shutil.rmtree(merged)
        for gguf_type in wanted:
            if gguf.is_converted(gguf_type):
                continue
            path = self.context.scratch / f"{gguf_type}.gguf"
            with self._timed("quantize"):
                self._report("Quantizing")
                gguf.quantize(source, path, gguf_type)
            yield gguf_type, path
            path.unlink()

    def _download_adapter(self) -> Path:
        folder = self.context.scratch / adapter.FOLDER
        folder.mkdir()
        prefix = f"{self.folder}/{adapter.FOLDER}"
        for stored in self.context.store.list(prefix):
            name = stored.key.removeprefix(f"{prefix}/")
            if "/" not in name:
                self.context.store.get_file(stored.key, folder / name)
        wanted = next(a.sha256 for a in self.trained.artifacts if a.type == "LoRAAdapter")
        tensors = folder / adapter.WEIGHTS
        if not tensors.is_file() or sha256_of(tensors) != wanted:
            raise ModelError(f"{prefix}/{adapter.WEIGHTS} is not the file that train wrote; start the job anew")
        return folder

    def _read_reference(self) -> Reference:
        key = f"{self.folder}/{prepared.FOLDER}/{reference.NAME}"
        data = self.context.store.get_bytes(key)
        if data is None:
            raise SettingsError(f"{self.context.store.uri} has no {key}: train's files are gone; start the job anew")
        return Reference.model_validate_json(data)

    def _modelfile(self, tokenizer: Any) -> ollama.Modelfile:
        description = self.prepared

        def rendered(prompt: str) -> str:
            return template.render_prompt(tokenizer, description.chat_template, description.system_prompt, prompt)

        return ollama.describe(
            rendered,
            tokenizer.bos_token if template.adds_bos(tokenizer) else None,
            description.system_prompt,
            description.stop_strings,
            self.plan.model.max_sequence_length,
        )

    def _publish(self, gguf_type: GGUFType, path: Path, modelfile: ollama.Modelfile) -> None:
        self._report("Uploading")
        name = f"{self.plan.job.name}-{gguf_type}.gguf"
        key = f"{_FOLDER}/{name}"
        checksum = sha256_of(path)
        self.context.store.put_file(f"{self.folder}/{key}", path)
        self.published.sha256[key] = checksum
        self.published.ggufs.append((gguf_type, key))
        self.published.artifacts.append(
            Artifact(name=gguf_type, type="GGUF", path=key, size_bytes=path.stat().st_size, sha256=checksum)
        )
        text = ollama.text(modelfile, name).encode()
        key = f"{_FOLDER}/Modelfile-{gguf_type}"
        self.context.store.put_bytes(f"{self.folder}/{key}", text)
        self.published.modelfiles.append(key)
        self.published.artifacts.append(
            Artifact(
                name=f"Modelfile-{gguf_type}",
                type="Modelfile",
                path=key,
                size_bytes=len(text),
                sha256=hashlib.sha256(text).hexdigest(),
            )
        )

    def _hand_off(self) -> None:
        """Write the last files, the manifest after all others and the pointers to it after that."""
        store, made = self.context.store, self.published
        self._report("Uploading")
        uri = join_uri(store.uri, self.folder)
        guide = serve_guide.text(self.plan, self.prepared, uri, made.ggufs, made.modelfiles)
        store.put_bytes(f"{self.folder}/{_GUIDE}", guide.encode())
        self._add_answers()
        made_from, trained = self.prepared, self.trained
        found = Manifest(
            run_id=made_from.run_id,
            job=self.plan.job.to_json(),
            model=made_from.model,
            adapter=made_from.adapter,
            template=made_from.template,
            dataset=made_from.dataset,
            plan=self.plan.to_json(),
            versions=manifest.versions(),
            memory=trained.memory,
            effective=trained.effective,
            evaluation=trained.evaluation,
            parity=made.parity,
            artifacts=[*trained.artifacts, *made.artifacts],
            files=manifest.list_files(store, self.folder, made.sha256, self.context.scratch),
        )
        store.put_bytes(f"{self.folder}/{MANIFEST}", found.to_bytes())
        reuse.publish(self.context, self.folder, found)

    def _add_answers(self) -> None:
        key = f"{self.folder}/{ANSWERS}"
        data = self.context.store.get_bytes(key)
        if data is None:
            raise SettingsError(f"{self.context.store.uri} has no {key}: train's files are gone; start the job anew")
        content = json.loads(data)
        for index, question in enumerate(content["questions"]):
            question["gguf"] = {gguf_type: texts[index] for gguf_type, texts in self.published.answers.items()}
        self.context.store.put_bytes(key, json.dumps(content, ensure_ascii=False, indent=2).encode())

    def _report(self, activity: Activity, percent: int | None = None) -> None:
        self.context.reporter.report(activity, percent=percent)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.timings[part] = self.timings.get(part, 0.0) + time.monotonic() - started
