"""The export stage: merge, convert, verify, upload, publish.

Each file is verified before it is uploaded, uploaded while the next one is made, and recorded when it is uploaded.
After a killed attempt, the next one continues with the first file that is not recorded.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.layout import MANIFEST
from finetune_api.result import StageResult
from finetune_api.spec import GGUFType
from finetune_api.status import MAXIMUM_REJECTION, Parity
from finetune_trainer.errors import GuardError, ModelError, SettingsError
from finetune_trainer.export.background_upload import Uploader
from finetune_trainer.export.files import ExportFiles
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.parity import check as parity_check
from finetune_trainer.export.parity import rejected
from finetune_trainer.export.proofs import Proofs
from finetune_trainer.export.publish import CHECKSUMS, GGUF_FOLDER, MERGED_FOLDER, Finished, Publisher, adapter_sha256
from finetune_trainer.export.records import ExportState, GGUFAnswer, Made, Record
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.export.serving import modelfile as ollama
from finetune_trainer.export.work_folder import kept_folder
from finetune_trainer.progress.stage_clock import StageClock
from finetune_trainer.run_folder import manifest, stage_results
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.build_id import build_id
from finetune_trainer.runtime.context import Context
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.store import Progress

# Names of records, besides the types in `export.gguf`.
_SOURCE = "Source"
_MERGED = "Merged"
_LORA = "LoRA"
# The parts shown in the report. Everything else counts as "export", such as uploads, which run in the background.
_REPORTED = ("merge", "convert", "importance", "quantize", "prove", "answer")

log = logging.getLogger(__name__)


def run(context: Context) -> StageResult:
    """Make the files that the plan asks for, then the manifest. A file that fails its proof is withheld.

    Raises:
        StageError: a file could not be made, or every one failed.
    """
    started, clock = time.monotonic(), StageClock(context.reporter)
    description, trained = stage_results.read_prepared(context), stage_results.read(context, "train")
    if trained.run_id != description.run_id:
        raise SettingsError("train has not finished for the data that prepare made last; run train again")
    publisher = Publisher(context, description, trained)
    artifacts = publisher.completed()
    if artifacts is None:
        run_folder = context.layout.run(description.run_id)
        made = Made(run_id=description.run_id, adapter_sha256=adapter_sha256(trained), trainer=build_id())
        state = ExportState(context.store, context.layout, run_folder, made)
        finished = _make(context, description, state, made, clock)
        with clock.part("handOff", "Uploading"):
            publisher.publish(finished, _reported(clock.seconds, time.monotonic() - started))
        artifacts = finished.artifacts
        if (why := manifest.all_rejected(artifacts)) is not None:
            # Another try is another decision: spec.retryGeneration, or a job of another trainer.
            state.forget_rejected()
            raise ModelError(why)
    context.store.delete(context.layout.checkpoints)
    return StageResult(
        stage="export", exit_code=ExitCode.OK, run_id=description.run_id, artifacts=artifacts, timings=clock.timings
    )


def _make(context: Context, description: Prepared, state: ExportState, made: Made, clock: StageClock) -> Finished:
    """Put everything that the plan asks for into the bucket."""
    # A run that an earlier attempt completed is incomplete while this attempt replaces files.
    context.store.delete(f"{context.layout.run(description.run_id)}/{MANIFEST}")
    digest = hashlib.sha256(made.model_dump_json().encode()).hexdigest()[:16]
    with (
        kept_folder(context.scratch, f"export-{context.layout.uid}", digest) as folder,
        Uploader(lambda percent: context.reporter.report("Uploading", percent=percent)) as uploader,
    ):
        files = ExportFiles(context, description, made.adapter_sha256, folder, clock)
        in_4bit = context.plan.model.quantization == "NF4"
        proofs = Proofs(files, description, clock, trained_in_4bit=in_4bit)
        export = _Export(context, description, files, proofs, state, uploader, clock)
        export.make()
        uploader.wait()
    clock.add("upload", uploader.seconds)
    return export.finished()


class _Export:
    """One attempt: from the adapter to files that are verified, uploaded and recorded."""

    def __init__(
        self,
        context: Context,
        description: Prepared,
        files: ExportFiles,
        proofs: Proofs,
        state: ExportState,
        uploader: Uploader,
        clock: StageClock,
    ) -> None:
        self._context = context
        self._plan = context.plan.export
        self._prepared = description
        self._run = context.layout.run(description.run_id)
        self._files = files
        self._proofs = proofs
        self._state = state
        self._uploader = uploader
        self._clock = clock

    def make(self) -> None:
        """Make what is missing, one file after another. The last upload may still be running."""
        # First, because it is quick: a problem shows before hours of other work.
        if self._plan.lora_gguf and self._state.find(_LORA) is None:
            self._make_lora()
        missing = [t for t in self._plan.gguf if not self._is_done(t)]
        needs_merged = self._plan.merged and self._state.find(_MERGED) is None
        if not missing and not needs_merged:
            return
        # Always, even if not asked for: the others are made from it, and it shows what is wrong with the merged model.
        source = self._files.converted("F16")
        checksum = sha256_of(source)
        proof = self._prove(
            "F16" if "F16" in missing else _SOURCE, source, "F16", lambda: self._source_parity(source, checksum)
        )
        if proof is None:
            self._withhold_all([t for t in missing if t != "F16"] + [_MERGED] * needs_merged)
        else:
            self._make_of(source, checksum, proof, missing, needs_merged)
        self._uploader.wait()
        self._files.remove_merged()
        source.unlink()

    def _make_of(
        self, source: Path, checksum: str, proof: Parity, missing: Sequence[GGUFType], needs_merged: bool
    ) -> None:
        """Make the files that are missing from the F16 file, which is proven."""
        if "F16" in missing:
            self._finish("F16", source, proof, source_sha256=checksum)
        if "BF16" in missing:
            self._finish_proven("BF16", self._files.converted("BF16"), source)
        if needs_merged:
            self._upload_merged(proof)
        else:
            self._files.remove_merged()
        for gguf_type in (t for t in missing if not gguf_convert.is_converted(t)):
            self._finish_proven(gguf_type, self._files.quantized(source, gguf_type), source)

    def _finish_proven(self, gguf_type: GGUFType, path: Path, source: Path) -> None:
        proof = self._prove(gguf_type, path, gguf_type, lambda: self._proofs.made_of_f16(gguf_type, path, source))
        if proof is None:
            path.unlink()
        else:
            self._finish(gguf_type, path, proof)

    def finished(self) -> Finished:
        """Return what is in the bucket after `make`.

        Raises:
            GuardError: a file is missing.
        """
        return Finished(
            ggufs={t: self._record(t) for t in self._plan.gguf},
            modelfiles={t: self._record(_modelfile(t)) for t in self._plan.gguf if self._record(t).rejected is None},
            lora=self._record(_LORA) if self._plan.lora_gguf else None,
            merged=self._record(_MERGED) if self._plan.merged else None,
        )

    def _record(self, name: str) -> Record:
        record = self._state.find(name)
        if record is None:
            raise GuardError(f"export ended without {name}, which the plan asks for")
        return record

    def _is_done(self, gguf_type: GGUFType) -> bool:
        record = self._state.find(gguf_type)
        # One that is withheld has no Modelfile.
        return record is not None and (
            record.rejected is not None or self._state.find(_modelfile(gguf_type)) is not None
        )

    def _make_lora(self) -> None:
        """Prove the adapter's GGUF with a GGUF of the base, which prepare made sure of, and start its upload."""
        path, base = self._files.lora_gguf(), self._files.base_gguf()
        proof = self._prove(_LORA, path, None, lambda: self._proofs.lora(path, base))
        base.unlink()
        if proof is None:
            path.unlink()
        else:
            self._upload(_LORA, path, proof)

    def _source_parity(self, source: Path, checksum: str) -> Parity:
        """Prove the merged model and the file that the others are made from, unless an earlier attempt did."""
        for record in (self._state.find("F16"), self._state.find(_SOURCE)):
            if record is not None and record.sha256 == checksum and record.parity is not None:
                return record.parity
        self._proofs.merged()
        found = self._proofs.f16(source)
        self._state.keep(_SOURCE, None, source.stat().st_size, checksum, found)
        return found

    def _prove(self, name: str, path: Path, gguf_type: GGUFType | None, prove: Callable[[], Parity]) -> Parity | None:
        """Return a file's figures, or keep it in rejected/ and return None. `gguf_type`: None for the adapter's."""
        self._uploader.check()
        try:
            return prove()
        except RejectedFile as error:
            advised = rejected.advice(gguf_type, self._trained_in_4bit, self._prepared.merge_base)
            file = self._gguf_name(gguf_type or name)
            with self._clock.part("upload", "Uploading") as advance:
                why = rejected.keep(self._context.store, self._run, file, path, error, advised, advance)
            log.warning("%s", why)
            self._state.keep(
                name,
                f"{rejected.FOLDER}/{file}",
                path.stat().st_size,
                sha256_of(path),
                rejected=why[:MAXIMUM_REJECTION],
            )
            return None

    def _withhold_all(self, names: Sequence[str]) -> None:
        """Record files that would be made from the F16 file that was rejected."""
        source = self._state.find("F16") or self._state.find(_SOURCE)
        assert source is not None
        for name in names:
            self._state.keep(name, source.path, source.size_bytes, source.sha256, rejected=source.rejected)

    def _finish(self, gguf_type: GGUFType, path: Path, proof: Parity, *, source_sha256: str | None = None) -> None:
        """Ask a verified file the questions and start its upload; `source_sha256` as in `_upload`."""
        with self._clock.part("answer", "Evaluating"):
            answers = parity_check.answers(
                path,
                self._files.reference.prompts,
                self._prepared.stop_token_ids,
                self._context.plan.evaluation.max_new_tokens,
            )
        modelfile = ollama.text(self._files.modelfile, self._gguf_name(gguf_type)).encode()
        self._upload(gguf_type, path, proof, answers, modelfile, source_sha256=source_sha256)

    def _upload(
        self,
        name: str,
        path: Path,
        proof: Parity,
        answers: list[GGUFAnswer] | None = None,
        modelfile: bytes | None = None,
        *,
        source_sha256: str | None = None,
    ) -> None:
        """Start the upload of one GGUF, which ends with its record.

        `source_sha256`: the checksum of the file that the others are made from, which stays on the disk. None: another
        file, which is deleted after the upload.
        """

        def upload(progress: Progress) -> None:
            if modelfile is not None:
                key = f"{GGUF_FOLDER}/{_modelfile(name)}"
                self._state.forget(_modelfile(name))
                self._context.store.put_bytes(f"{self._run}/{key}", modelfile)
                self._state.keep(_modelfile(name), key, len(modelfile), hashlib.sha256(modelfile).hexdigest())
            key = f"{GGUF_FOLDER}/{self._gguf_name(name)}"
            self._state.forget(name)
            self._context.store.put_file(f"{self._run}/{key}", path, progress)
            self._state.keep(name, key, path.stat().st_size, source_sha256 or sha256_of(path), proof, answers)
            if source_sha256 is None:
                path.unlink()

        self._uploader.start(path.stat().st_size, upload)

    def _upload_merged(self, proof: Parity) -> None:
        """Start the upload of the merged model, whose weights are then deleted."""
        folder = self._files.merged()
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        total = sum(path.stat().st_size for path in paths)

        def upload(progress: Progress) -> None:
            self._state.forget(_MERGED)
            lines, size = [], 0
            for path in paths:
                lines.append(f"{self._upload_merged_file(path, progress)}  {path.name}\n")
                size += path.stat().st_size
            # Last: readers take the folder for complete when this list exists.
            checksums = "".join(lines).encode()
            self._context.store.put_bytes(f"{self._run}/{MERGED_FOLDER}/{CHECKSUMS}", checksums)
            digest = hashlib.sha256(checksums).hexdigest()
            self._state.keep(_MERGED, f"{MERGED_FOLDER}/", size + len(checksums), digest, proof)
            self._files.remove_merged()

        self._uploader.start(total, upload)

    def _upload_merged_file(self, path: Path, progress: Progress) -> str:
        """Upload a file unless it is there; return its checksum."""
        name = f"{_MERGED}-{path.name}"
        checksum, size = sha256_of(path), path.stat().st_size
        there = self._state.find(name)
        if there is None or there.sha256 != checksum:
            key = f"{MERGED_FOLDER}/{path.name}"
            self._state.forget(name)
            self._context.store.put_file(f"{self._run}/{key}", path, progress)
            self._state.keep(name, key, size, checksum)
        return checksum

    def _gguf_name(self, name: str) -> str:
        return f"{self._context.plan.job.name}-{name}.gguf"

    @property
    def _trained_in_4bit(self) -> bool:
        return self._context.plan.model.quantization == "NF4"


def _reported(parts: Mapping[str, float], total: float) -> dict[str, float]:
    found = {name: parts[name] for name in _REPORTED if name in parts}
    return found | {"export": total - sum(found.values())}


def _modelfile(gguf_type: str) -> str:
    return f"Modelfile-{gguf_type}"
