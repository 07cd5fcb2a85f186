"""Makes the files of the export on the local disk: fetched, merged, converted, quantized.

Whatever is made gets its name when it is whole. In a folder that outlived a killed attempt it is not made again.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_api.spec import GGUFType
from finetune_trainer import adapter, base_weights, gguf, merge, merge_base, ollama, prepared, reference
from finetune_trainer.checkpoints import sha256_of
from finetune_trainer.context import Context
from finetune_trainer.data import template
from finetune_trainer.data.example import Message
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.fetch import fetch_original, fetch_weights
from finetune_trainer.prepared import Prepared
from finetune_trainer.reference import Reference
from finetune_trainer.stage_clock import StageClock

_MERGED = "merged"
# Written last.
_WHOLE = "merged.whole"


class ExportFiles:
    """The files of one export in `folder`, each made when it is first asked for."""

    def __init__(
        self, context: Context, description: Prepared, adapter_sha256: str, folder: Path, clock: StageClock
    ) -> None:
        self._context = context
        self._prepared = description
        self._adapter_sha256 = adapter_sha256
        self._run = context.layout.run(description.run_id)
        self._folder = folder
        self._clock = clock

    @cached_property
    def base(self) -> Path:
        """The model's folder as prepare pinned it."""
        with self._clock.part("fetch", "Downloading"):
            return fetch_weights(self._context, self._prepared.model)

    @cached_property
    def adapter(self) -> Path:
        """The adapter that train wrote.

        Raises:
            ModelError: the bucket has another one.
        """
        folder = self._folder / adapter.FOLDER
        folder.mkdir(exist_ok=True)
        prefix = f"{self._run}/{adapter.FOLDER}"
        for stored in self._context.store.list(prefix):
            name = stored.key.removeprefix(f"{prefix}/")
            if "/" not in name:
                self._context.store.get_file(stored.key, folder / name)
        tensors = folder / adapter.WEIGHTS
        if not tensors.is_file() or sha256_of(tensors) != self._adapter_sha256:
            raise ModelError(f"{prefix}/{adapter.WEIGHTS} is not the file that train wrote; start the job anew")
        return folder

    @cached_property
    def reference(self) -> Reference:
        """What every file is compared with.

        Raises:
            SettingsError: the bucket has none.
        """
        key = f"{self._run}/{prepared.FOLDER}/{reference.NAME}"
        data = self._context.store.get_bytes(key)
        if data is None:
            raise SettingsError(f"{self._context.store.uri} has no {key}: train's files are gone; start the job anew")
        return Reference.model_validate_json(data)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base, local_files_only=True, trust_remote_code=False)

    @cached_property
    def modelfile(self) -> ollama.Modelfile:
        """What Ollama has to know of every GGUF of this model."""
        description = self._prepared

        def rendered(messages: Sequence[Message]) -> str:
            return template.render(self.tokenizer, description.chat_template, messages, generate=True)

        return ollama.describe(
            rendered,
            self.tokenizer.bos_token if template.adds_bos(self.tokenizer) else None,
            description.system_prompt,
            description.stop_strings,
            self._context.plan.model.max_sequence_length,
        )

    def merged(self) -> Path:
        """The merged model as 16-bit safetensors with configuration, tokenizer and template."""
        target, whole = self._folder / _MERGED, self._folder / _WHOLE
        if not whole.exists():
            base, adapter_folder, original, loaded = self.base, self.adapter, self._original, self._loading()
            with self._clock.part("merge", "Merging") as advance:
                merge.merge(base, adapter_folder, target, original, loaded, advance)
            whole.touch()
        return target

    @cached_property
    def _original(self) -> Path | None:
        """The 16-bit weights, where they are not the model's own."""
        if self._prepared.original is None:
            return None
        with self._clock.part("fetch", "Downloading"):
            return fetch_original(self._context, self._prepared.original)

    def _loading(self) -> base_weights.Loading | None:
        """How training loaded the model, if the adapter is added to that."""
        chosen = merge_base.choose(self._context.plan, stored_in_4bit=self._prepared.model.stored_in_4bit)
        if chosen == "Original":
            return None
        key = f"{self._run}/{base_weights.NAME}"
        data = self._context.store.get_bytes(key)
        if data is None:
            raise SettingsError(f"{self._context.store.uri} has no {key}: train's files are gone; start the job anew")
        return base_weights.Loading.model_validate_json(data)

    def remove_merged(self) -> None:
        """Free the disk of what is not needed any more."""
        (self._folder / _WHOLE).unlink(missing_ok=True)
        shutil.rmtree(self._folder / _MERGED, ignore_errors=True)

    def converted(self, gguf_type: GGUFType) -> Path:
        """A 16-bit GGUF of the merged model."""

        def make(partial: Path) -> None:
            merged = self.merged()
            with self._clock.part("convert", "Converting") as advance:
                gguf.convert(merged, partial, gguf_type, self._context.scratch, advance)

        return self._made(f"{gguf_type}.gguf", make)

    def quantized(self, source: Path, gguf_type: GGUFType) -> Path:
        """A smaller GGUF of the 16-bit one."""

        def make(partial: Path) -> None:
            with self._clock.part("quantize", "Quantizing") as advance:
                gguf.quantize(source, partial, gguf_type, advance)

        return self._made(f"{gguf_type}.gguf", make)

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self._folder / name
        if not path.exists():
            partial = self._folder / f"{name}.part"
            partial.unlink(missing_ok=True)
            make(partial)
            partial.replace(path)
        return path
