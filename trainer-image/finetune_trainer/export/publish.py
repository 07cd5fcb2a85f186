"""Writes the last files of a run, in an order that readers can rely on.

First everything that the manifest lists, then the manifest, then the pointers to it. A pointer never leads to a missing
manifest, and a manifest never lists a missing file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.layout import MANIFEST, join_uri
from finetune_api.report import AnswerFlags, AnswerReport, ExportReport, Report
from finetune_api.result import StageResult
from finetune_api.spec import GGUFType
from finetune_api.status import Artifact
from finetune_trainer.errors import SettingsError
from finetune_trainer.evaluation import answer_flags
from finetune_trainer.evaluation.evaluation import ANSWERS
from finetune_trainer.export.parity import limits_report, rejected
from finetune_trainer.export.records import GGUFAnswer, Record
from finetune_trainer.export.serving import guide as serve_guide
from finetune_trainer.model import adapter
from finetune_trainer.model.adapter import CHAT_TEMPLATE
from finetune_trainer.report import description as run_description
from finetune_trainer.report import html as report_html
from finetune_trainer.report import texts
from finetune_trainer.run_folder import manifest, report_json, reuse
from finetune_trainer.run_folder.manifest import Manifest
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context

GGUF_FOLDER = "gguf"
MERGED_FOLDER = "merged"
# In the merged model's folder: what `sha256sum --check` reads. The artifact's checksum is that of this file.
CHECKSUMS = "SHA256SUMS"
_GUIDE = "SERVE.md"
_HTML = "report.html"


@dataclass(frozen=True)
class Finished:
    """Everything that export made, rejected files too. GGUF files and Modelfiles are keyed by GGUF type."""

    ggufs: Mapping[GGUFType, Record]
    modelfiles: Mapping[GGUFType, Record]
    lora: Record | None
    merged: Record | None

    @property
    def artifacts(self) -> list[Artifact]:
        """As the status shows them."""
        found = []
        for gguf_type, record in self.ggufs.items():
            found.append(_artifact(gguf_type, "GGUF", record))
            if record.rejected is None:
                found.append(_artifact(f"Modelfile-{gguf_type}", "Modelfile", self.modelfiles[gguf_type]))
        if self.lora is not None:
            found.append(_artifact("LoRA", "LoRAGGUF", self.lora))
        if self.merged is not None:
            found.append(_artifact("Merged", "MergedModel", self.merged))
        return found

    @property
    def answers(self) -> list[dict[GGUFType, GGUFAnswer]]:
        """One entry per question: each GGUF type's answer."""
        answered = {t: record.answers for t, record in self.ggufs.items() if record.answers is not None}
        count = min((len(texts) for texts in answered.values()), default=0)
        return [{t: texts[i] for t, texts in answered.items()} for i in range(count)]


def _artifact(name: str, kind: str, record: Record) -> Artifact:
    return Artifact.model_validate(
        {
            "name": name,
            "type": kind,
            "path": record.path,
            "sizeBytes": record.size_bytes,
            "sha256": record.sha256,
            "parity": record.parity,
            "rejected": record.rejected,
        }
    )


def _texts(answers: Mapping[GGUFType, GGUFAnswer]) -> dict[str, str]:
    return {gguf_type: answer.text for gguf_type, answer in answers.items()}


def _flagged(answer: AnswerReport, answers: Mapping[GGUFType, GGUFAnswer]) -> AnswerFlags:
    found = {t: answer_flags.of_file(given.text, given.stopped, answer) for t, given in answers.items()}
    return answer.flags.model_copy(update={"gguf": found})


def adapter_sha256(trained: StageResult) -> str:
    """Return the checksum of the adapter's weights that train reported."""
    return next(artifact.sha256 for artifact in trained.artifacts if artifact.type == "LoRAAdapter")


class Publisher:
    """Completes the run of `description`."""

    def __init__(self, context: Context, description: Prepared, trained: StageResult) -> None:
        self._context = context
        self._store = context.store
        self._prepared = description
        self._trained = trained
        self._run = context.layout.run(description.run_id)

    def completed(self) -> list[Artifact] | None:
        """Return what export made if an earlier attempt completed this run, and write the pointers to it again."""
        found = manifest.read_complete(self._store, self._run)
        if found is None or found.plan != self._context.plan.to_json() or found.versions != manifest.versions():
            return None
        own = self._trained.artifacts
        # What failed as a whole is tried again: the operator starts export once more only if that was asked for.
        if manifest.all_rejected(found.artifacts) is not None:
            return None
        if any(artifact not in found.artifacts for artifact in own):
            return None
        reuse.publish(self._context, self._run, found)
        return [artifact for artifact in found.artifacts if artifact not in own]

    def publish(self, finished: Finished, timings: Mapping[str, float]) -> None:
        """Write the files; `timings` are the seconds spent, by part.

        Raises:
            StageError: the bucket cannot be written, or train's files are missing.
        """
        known = self._checksums(finished)
        self._delete_others(known)
        artifacts = [*self._trained.artifacts, *finished.artifacts]
        if any(record.rejected is None for record in (*finished.ggufs.values(), finished.lora) if record):
            self._put(f"{GGUF_FOLDER}/{CHAT_TEMPLATE}", self._prepared.chat_template)
        self._add_answers(finished.answers)
        report = self._add_to_report(finished, artifacts, timings)
        letters = report.data.languages if report.data else None
        language = texts.choose(self._context.plan.export.report_language, letters)
        self._put(_HTML, report_html.render(report, language))
        self._put(_GUIDE, self._guide(finished))
        files = manifest.list_files(self._store, self._run, known, self._context.scratch)
        found = Manifest(
            run_id=self._prepared.run_id,
            job=self._context.plan.job.to_json(),
            model=self._prepared.model,
            adapter=self._prepared.adapter,
            template=self._prepared.template,
            dataset=self._prepared.dataset,
            plan=self._context.plan.to_json(),
            versions=manifest.versions(),
            memory=self._trained.memory,
            effective=self._trained.effective,
            evaluation=self._trained.evaluation,
            artifacts=artifacts,
            files=[file for file in files if not manifest.is_log(file)],
            logs=[file for file in files if manifest.is_log(file)],
        )
        self._store.put_bytes(f"{self._run}/{MANIFEST}", found.to_bytes())
        reuse.publish(self._context, self._run, found)

    def _checksums(self, finished: Finished) -> dict[str, str]:
        """Return the sha256 of each large file by its path in the run's folder."""
        records = [*finished.ggufs.values(), *finished.modelfiles.values(), finished.lora]
        known = {r.path: r.sha256 for r in records if r is not None and r.path is not None}
        known[f"{adapter.FOLDER}/{adapter.WEIGHTS}"] = adapter_sha256(self._trained)
        if finished.merged is not None and finished.merged.rejected is None:
            path = f"{MERGED_FOLDER}/{CHECKSUMS}"
            text = self._store.get_bytes(f"{self._run}/{path}") or b""
            if hashlib.sha256(text).hexdigest() != finished.merged.sha256:
                raise SettingsError(
                    f"{self._run}/{path} was changed while export ran; delete this FineTuneJob and create it again"
                )
            known[path] = finished.merged.sha256
            for line in text.decode().splitlines():
                checksum, _, name = line.partition("  ")
                known[f"{MERGED_FOLDER}/{name}"] = checksum
        return known

    def _delete_others(self, known: Mapping[str, str]) -> None:
        """Delete files of earlier attempts that are not in `known`."""
        kept = {*known, *(f"{path}{rejected.FIGURES}" for path in known)}
        for folder in (GGUF_FOLDER, MERGED_FOLDER, rejected.FOLDER):
            for stored in self._store.list(f"{self._run}/{folder}"):
                if stored.key.removeprefix(f"{self._run}/") not in kept:
                    self._store.delete(stored.key)

    def _add_answers(self, answers: Sequence[Mapping[GGUFType, GGUFAnswer]]) -> None:
        data = self._store.get_bytes(f"{self._run}/{ANSWERS}")
        if data is None:
            raise SettingsError(
                f"{self._store.uri} has no {self._run}/{ANSWERS}: train's files are gone; "
                "delete this FineTuneJob and create it again"
            )
        content = json.loads(data)
        for question, answer in zip(content["questions"], answers, strict=False):
            question["gguf"] = _texts(answer)
        self._put(ANSWERS, json.dumps(content, ensure_ascii=False, indent=2))

    def _add_to_report(self, finished: Finished, artifacts: list[Artifact], timings: Mapping[str, float]) -> Report:
        evaluation = report_json.read(self._store, self._run).evaluation
        if evaluation is not None:
            answered = [
                answer.model_copy(update={"gguf": _texts(given), "flags": _flagged(answer, given)})
                for answer, given in zip(evaluation.answers, finished.answers, strict=False)
            ]
            evaluation = evaluation.model_copy(update={"answers": answered or evaluation.answers})
        return report_json.add(
            self._store,
            self._run,
            run=run_description.describe(self._context.plan, self._prepared, join_uri(self._store.uri, self._run)),
            evaluation=evaluation,
            export=ExportReport(
                merge_base=self._prepared.merge_base,
                artifacts=artifacts,
                limits=limits_report.of(
                    finished.artifacts,
                    finished.ggufs,
                    trained_in_4bit=self._context.plan.model.quantization == "NF4",
                    merge_base=self._prepared.merge_base,
                    parameters=self._prepared.model.parameters,
                ),
            ),
            timings=timings,
        )

    def _guide(self, finished: Finished) -> str:
        files = serve_guide.Files(
            ggufs={t: record.path for t, record in finished.ggufs.items() if record.path and not record.rejected},
            modelfiles={t: record.path for t, record in finished.modelfiles.items() if record.path},
            lora_gguf=finished.lora.path if finished.lora and not finished.lora.rejected else None,
            merged=MERGED_FOLDER if finished.merged and not finished.merged.rejected else None,
        )
        return serve_guide.text(self._context.plan, self._prepared, join_uri(self._store.uri, self._run), files)

    def _put(self, path: str, text: str) -> None:
        self._store.put_bytes(f"{self._run}/{path}", text.encode())
