"""Makes the files of the export on the local disk: fetches, merges, converts and quantizes.

A file gets its final name when it is complete, so that the next attempt can use the files of a killed one.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_api.spec import GGUFType
from finetune_trainer import methods
from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens import chat_template
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.evaluation import reference
from finetune_trainer.evaluation.reference import Reference
from finetune_trainer.export import merge
from finetune_trainer.export.gguf import check as gguf_check
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import imatrix
from finetune_trainer.export.gguf import lora as lora_gguf
from finetune_trainer.export.gguf.header import Header
from finetune_trainer.export.serving import modelfile as ollama
from finetune_trainer.model import adapter, base_weights
from finetune_trainer.progress.stage_clock import StageClock
from finetune_trainer.run_folder import prepared
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.sources.model import fetch_original, fetch_weights
from finetune_trainer.storage.checksum import sha256_of

_MERGED = "merged"
# Written last.
_WHOLE = "merged.whole"

log = logging.getLogger(__name__)


class ExportFiles:
    """The files of one export in `folder`, each made on first use."""

    def __init__(
        self, context: Context, description: Prepared, adapter_sha256: str, folder: Path, clock: StageClock
    ) -> None:
        self._context = context
        self._prepared = description
        self._adapter_sha256 = adapter_sha256
        self._run = context.layout.run(description.run_id)
        self._folder = folder
        self._clock = clock
        self._measured: imatrix.ImportanceMatrix | None = None
        self._f16: Header | None = None

    @cached_property
    def base(self) -> Path:
        """The model's folder as prepare pinned it."""
        with self._clock.part("fetch", "Downloading"):
            return fetch_weights(self._context, self._prepared.model)

    @cached_property
    def adapter(self) -> Path:
        """The adapter that train wrote.

        Raises:
            ModelError: the adapter in the bucket is a different one.
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
            raise ModelError(
                f"{prefix}/{adapter.WEIGHTS} is not the file that train wrote; "
                "delete this FineTuneJob and create it again"
            )
        return folder

    @cached_property
    def reference(self) -> Reference:
        """The predictions that every file is compared with.

        Raises:
            SettingsError: they are not in the bucket.
        """
        key = f"{self._run}/{prepared.FOLDER}/{reference.NAME}"
        data = self._context.store.get_bytes(key)
        if data is None:
            raise self._gone(key)
        return Reference.model_validate_json(data)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base, local_files_only=True, trust_remote_code=False)

    @cached_property
    def modelfile(self) -> ollama.Modelfile:
        """The content of the Ollama Modelfile of every GGUF of this model."""
        description = self._prepared

        def rendered(messages: Sequence[Message]) -> str:
            return chat_template.render(self.tokenizer, description.chat_template, messages, generate=True)

        return ollama.describe(
            rendered,
            self.tokenizer.bos_token if chat_template.adds_bos(self.tokenizer) else None,
            description.system_prompt,
            description.stop_strings,
            self._context.plan.model.max_sequence_length,
        )

    def _gone(self, key: str) -> SettingsError:
        return SettingsError(
            f"{self._context.store.uri} has no {key}: train's files are gone; "
            "delete this FineTuneJob and create it again"
        )

    def merged(self) -> Path:
        """The merged model as 16-bit safetensors with configuration, tokenizer and template."""
        target, whole = self._folder / _MERGED, self._folder / _WHOLE
        if not whole.exists():
            base, adapter_folder, original, loaded = self.base, self.adapter, self._original, self.loading()
            with self._clock.part("merge", "Merging") as advance:
                merge.merge(base, adapter_folder, target, original, loaded, advance)
            whole.touch()
        return target

    @cached_property
    def _original(self) -> Path | None:
        """The 16-bit weights, if they are not the model's own."""
        if self._prepared.original is None:
            return None
        with self._clock.part("fetch", "Downloading"):
            return fetch_original(self._context, self._prepared.original)

    @property
    def weights(self) -> Path:
        """The folder of the weights that the adapter is merged into."""
        return self.base if self._original is None else self._original

    def loading(self) -> base_weights.Loading | None:
        """How training loaded the model, if the adapter is merged into the weights as training saw them."""
        if self._prepared.merge_base != "Trained":
            return None
        key = f"{self._run}/{base_weights.NAME}"
        data = self._context.store.get_bytes(key)
        if data is None:
            raise self._gone(key)
        return base_weights.Loading.model_validate_json(data)

    def remove_merged(self) -> None:
        """Delete the merged weights to free disk space; the folder's other files are needed to check GGUF files."""
        (self._folder / _WHOLE).unlink(missing_ok=True)
        for path in (self._folder / _MERGED).glob("*.safetensors"):
            path.unlink()

    @cached_property
    def _expected(self) -> gguf_check.Expected:
        folder = self._folder / _MERGED
        return gguf_check.expected(folder if (folder / "config.json").is_file() else self.merged())

    def converted(self, gguf_type: GGUFType) -> Path:
        """A 16-bit GGUF of the merged model."""
        path = self._folder / f"{gguf_type}.gguf"
        if not path.exists():
            merged = self.merged()
            with self._clock.part("convert", "Converting") as advance:
                gguf_convert.convert(merged, path, gguf_type, self._context.scratch, advance)
        return path

    def quantized(self, source: Path, gguf_type: GGUFType) -> Path:
        """A quantized GGUF made from the F16 file."""
        path = self._folder / f"{gguf_type}.gguf"
        if not path.exists():
            importance = self._importance(source) if imatrix.needed(gguf_type) else None
            with self._clock.part("quantize", "Quantizing") as advance:
                gguf_convert.quantize(source, path, gguf_type, advance, importance)
        return path

    def check_metadata(self, path: Path, gguf_type: GGUFType) -> None:
        """Check a file's metadata; a quantized one's also beside those of the F16 file, if that was checked.

        Raises:
            RejectedFile: they are not the model's.
        """
        beside = None if gguf_convert.is_converted(gguf_type) else self._f16
        head = gguf_check.check(path, gguf_type, self._expected, beside)
        if gguf_type == "F16":
            self._f16 = head

    def _importance(self, source: Path) -> imatrix.ImportanceMatrix:
        """The importance matrix, measured on the training rows, once for all types that need it."""
        if self._measured is None:
            rows = self._folder / "train.parquet"
            self._context.store.get_file(f"{self._run}/{prepared.TRAIN_ROWS}", rows)
            chosen = imatrix.choose(methods.of(self._context.plan.training.method).read(rows))
            with self._clock.part("importance", "Quantizing") as advance:
                self._measured = imatrix.compute(source, chosen, advance)
        return self._measured

    def base_gguf(self) -> Path:
        """The model without the adapter as an F16 GGUF, to verify the LoRA GGUF with."""
        path = self._folder / "base-F16.gguf"
        if not path.exists():
            weights = self.weights
            with self._clock.part("convert", "Converting") as advance:
                gguf_convert.convert(weights, path, "F16", self._context.scratch, advance)
        return path

    def lora_gguf(self) -> Path:
        """The adapter alone as a GGUF."""
        path = self._folder / "LoRA.gguf"
        if not path.exists():
            with self._clock.part("convert", "Converting"):
                lora_gguf.convert(self.base, self.adapter, path, self._context.scratch)
        return path

    def lora_gguf_or_none(self) -> Path | None:
        """The same, or None if llama.cpp cannot apply this adapter."""
        try:
            return self.lora_gguf()
        except ModelError as error:
            log.info("no LoRA GGUF: %s", error.message)
            return None
