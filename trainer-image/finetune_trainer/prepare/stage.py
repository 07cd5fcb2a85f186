"""The first stage, without a GPU: whatever can fail fails here. It pins the model and tokenizes the data."""

import contextlib
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from finetune_api import disk
from finetune_api.exit_codes import ExitCode
from finetune_api.plan import WeightsPlan
from finetune_api.report import CheckReport, Split
from finetune_api.result import StageResult
from finetune_api.status import DatasetStatus, MemoryStatus, ModelStatus, ScratchStatus
from finetune_trainer.data import epoch_warnings, length, requirements, status_warnings
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.holdout_questions import held_questions
from finetune_trainer.data.report import data_report, notes
from finetune_trainer.data.rows import collect
from finetune_trainer.data.split import holdout_rows
from finetune_trainer.data.tokenize import Tokens, answers_warning, tokenize
from finetune_trainer.data.tokens import parquet_writer
from finetune_trainer.data.tokens.chat_template import ChatTemplate
from finetune_trainer.data.tokens.encoder import Encoder
from finetune_trainer.data.tokens.stop_tokens import Stops, find_stops
from finetune_trainer.errors import DatasetError
from finetune_trainer.model import earlier_adapter, memory_fit
from finetune_trainer.model.checked import CheckedModel
from finetune_trainer.prepare import left_behind, model_preflight, run_id, template_choice
from finetune_trainer.run_folder import prepared, report_json, reuse
from finetune_trainer.run_folder.prepared import Prepared, Question
from finetune_trainer.runtime.context import Context
from finetune_trainer.sources import dataset as dataset_source
from finetune_trainer.sources import model as model_source
from finetune_trainer.sources.dataset_file import SourceFile
from finetune_trainer.sources.model_files import Listing, ModelFiles
from finetune_trainer.sources.resolved import ResolvedAdapter, ResolvedModel

_REPORT_EVERY_ROWS = 200
log = logging.getLogger(__name__)


def run(context: Context) -> StageResult:
    """Check access, data and model, and write `prepared/` and the report.

    Raises:
        StageError: the user has to change something, or a server is down.
    """
    started = time.monotonic()
    _check_access(context)
    left_behind.mark(context)
    result = _prepare(context, started)
    left_behind.clean(context)
    return result


def _prepare(context: Context, started: float) -> StageResult:
    context.reporter.report("Checking")
    plan = context.plan
    sources = dataset_source.fetch(context, plan.dataset.sources)
    holdout_sources = dataset_source.fetch(context, plan.dataset.holdout_sources)
    with contextlib.ExitStack() as opened:
        base = _Opened.open(opened, context)
        model, template = _check_model(context, base)
        merged_into = _Opened.open_original(opened, context)
        original = _check_original(model, merged_into) if merged_into else None
        earlier = earlier_adapter.resolve(context, model)
        stops = find_stops(model.tokenizer, template, model.generation_eos)
        # A bad row is reported in seconds: the weights of a folder, which take minutes to read, come after the rows.
        rows = _Rows(context, sources, holdout_sources)
        rows.tokenize(model.tokenizer, template, stops)
        rows.split()
        context.reporter.report("Checking")
        model = replace(model, resolved=base.pinned(model.resolved))
        original = merged_into.pinned(original) if merged_into and original else None
    log.info("model %s, revision %s", model.resolved.reference, model.resolved.revision)
    steps = length.total_steps(plan.training, int(rows.train.sum()))
    identity = run_id.compute(
        plan.model_copy(update={"training": length.resolved(plan.training, steps)}),
        model.resolved,
        template.jinja,
        [source.sha256 for source in sources],
        [source.sha256 for source in holdout_sources],
        earlier,
        original,
        model.merge_base,
    )
    if (reused := reuse.find(context, identity)) is not None:
        return reused
    description = _describe(context, identity, original, earlier, rows, model, template, stops, steps)
    _upload(context, description, rows, time.monotonic() - started)
    return StageResult(
        stage="prepare",
        exit_code=ExitCode.OK,
        run_id=identity,
        dataset=description.dataset,
        memory=description.memory,
        scratch=_scratch(context, model, original, rows),
        model=ModelStatus(
            revision=model.resolved.revision,
            parameters=model.resolved.parameters,
            architecture=model.resolved.architecture,
            template=template.kind,
            adapter=earlier.uri if earlier else None,
        ),
    )


def _check_access(context: Context) -> None:
    """Write, read and delete a small object: wrong credentials must fail now, not after training."""
    key = f"{context.layout.state}/access-{uuid.uuid4().hex}"
    context.store.put_bytes(key, b"")
    context.store.get_bytes(key)
    context.store.delete(key)


@dataclass(frozen=True)
class _Opened:
    """A model whose small files are here; its weights are only looked into until it is pinned."""

    files: ModelFiles
    listing: Listing
    folder: Path

    @classmethod
    def open(cls, stack: contextlib.ExitStack, context: Context) -> Self:
        """Open the plan's model."""
        return cls._open(stack, context, None, "model-metadata")

    @classmethod
    def open_original(cls, stack: contextlib.ExitStack, context: Context) -> Self | None:
        """Open the 16-bit weights that the adapter is merged into, or return None if they are the model's own."""
        plan = context.plan.export
        if not plan.merges or plan.original is None:
            return None
        return cls._open(stack, context, plan.original, "original-metadata")

    @classmethod
    def _open(cls, stack: contextlib.ExitStack, context: Context, plan: WeightsPlan | None, folder: str) -> Self:
        files = stack.enter_context(model_source.opened_model(context, plan=plan))
        listing = files.listing()
        metadata = model_source.fetch_metadata(context, files, listing, folder)
        context.reporter.report("Checking")
        return cls(files, listing, metadata)

    def pinned(self, found: ResolvedModel) -> ResolvedModel:
        """Return it with the identity of its files."""
        return model_source.pinned(self.files, self.listing, found)


def _check_model(context: Context, base: _Opened) -> tuple[CheckedModel, ChatTemplate]:
    model = model_preflight.check(context.plan, base.files, base.listing, base.folder)
    template = template_choice.choose(
        context.plan.dataset,
        model.tokenizer,
        template_choice.Weights(base.files, model.tensors),
        model.resolved.reference,
    )
    log.info("model %s (%s), template %s", model.resolved.reference, model.resolved.architecture, template.kind)
    return model, template


def _check_original(trained: CheckedModel, original: _Opened) -> ResolvedModel:
    return model_preflight.check_original(trained, original.files, original.listing, original.folder)


class _Rows:
    """The dataset, from its files to the training and hold-out rows."""

    def __init__(self, context: Context, sources: Sequence[SourceFile], holdout_sources: Sequence[SourceFile]) -> None:
        self._context = context
        self.spool = context.scratch / "spool"
        self.spool.mkdir()
        self._done = 0
        plan = context.plan
        collected = collect.collect(
            sources,
            plan.dataset.columns,
            plan.training.method,
            holdout_sources=holdout_sources,
            spool=self.spool,
            advance=lambda _rows: context.reporter.report("Checking"),
        )
        self.findings = Findings(collected, plan.dataset.duplicates)
        self.tokens: Tokens
        self.held: Any
        self._refuse(None)

    @property
    def tokenized(self) -> Path:
        """The file with all rows that are used."""
        return self._context.scratch / "rows.parquet"

    @property
    def train(self) -> Any:
        """Which rows of the table are trained on (a bool array)."""
        return self.findings.kept & ~self.held

    def ids(self, rows: Any) -> Any:
        """Return the row ids of a bool array."""
        return self.findings.collected.table.column("row_id")[rows]

    def tokenize(self, tokenizer: Any, template: ChatTemplate, stops: Stops) -> None:
        """Write the rows as token ids, and drop or reject those that cannot be learned."""
        plan = self._context.plan
        encoder = Encoder(
            tokenizer,
            template,
            stops,
            method=plan.training.method,
            system_prompt=plan.dataset.system_prompt,
            maximum=plan.model.max_sequence_length,
            responses_only=plan.training.train_on_responses_only,
        )
        self.tokens = tokenize(encoder, tokenizer, self.findings, self.spool, self.tokenized, self._advance)
        if plan.dataset.truncation == "Drop":
            self.findings.drop(self.tokens.truncated)
        self._refuse(self.tokens)

    def split(self) -> None:
        """Choose the hold-out rows."""
        plan = self._context.plan
        self.held = holdout_rows(
            self.findings, plan.dataset.holdout_percent, plan.training.seed, own=bool(plan.dataset.holdout_sources)
        )

    def requirements(self, tokens: Tokens | None) -> list[CheckReport]:
        """Return what is wrong with the dataset as a whole."""
        plan = self._context.plan
        truncated = tokens.truncated if tokens else None
        return requirements.checks(self.findings, truncated, plan.dataset, plan.model.max_sequence_length)

    def _refuse(self, tokens: Tokens | None) -> None:
        for check in self.requirements(tokens):
            if check.severity == "Fail":
                raise DatasetError(check.message)

    def _advance(self, rows: int) -> None:
        total = len(self.findings.collected.table)
        if self._done % _REPORT_EVERY_ROWS == 0:
            self._context.reporter.report("Tokenizing", percent=100 * self._done // total)
        self._done += rows


def _describe(
    context: Context,
    identity: str,
    original: ResolvedModel | None,
    earlier: ResolvedAdapter | None,
    rows: _Rows,
    model: CheckedModel,
    template: ChatTemplate,
    stops: Stops,
    steps: int,
) -> Prepared:
    plan, train, tokens, findings = context.plan, rows.train, rows.tokens, rows.findings
    trained = int(train.sum())
    epochs = epoch_warnings.epochs_planned(trained, plan.training.batch_size, steps)
    dataset = DatasetStatus(
        examples=findings.examples,
        dropped=findings.collected.rows - findings.examples,
        holdout=int(rows.held.sum()),
        supervised_tokens=int(tokens.learned[train].sum()),
        truncated=int((tokens.truncated & findings.kept).sum()),
        steps_planned=steps,
        epochs_planned=f"{epochs:.2f}",
        warnings=status_warnings.chosen(
            [*rows.requirements(tokens), *findings.checks],
            [*_sentences(context, rows), *notes(findings.collected)],
        ),
    )
    longest = int(tokens.length[train].max())
    return Prepared(
        run_id=identity,
        model=model.resolved,
        original=original,
        merge_base=model.merge_base,
        adapter=earlier,
        template=template.kind,
        chat_template=template.jinja,
        system_prompt=plan.dataset.system_prompt,
        stop_token_ids=list(stops.ids),
        stop_strings=list(stops.strings),
        total_steps=steps,
        memory=MemoryStatus(estimated_mib=memory_fit.check(plan, model.shape, longest)),
        dataset=dataset,
        questions=[Question(prompt=p) for p in plan.evaluation.prompts]
        or held_questions(rows.spool, rows.held, template.kind),
    )


def _sentences(context: Context, rows: _Rows) -> list[str]:
    """Return the warnings that are no check's; the notes on the sources stand in the report beside each source."""
    training, trained = context.plan.training, int(rows.train.sum())
    steps = length.total_steps(training, trained)
    return [
        *epoch_warnings.warnings(trained, steps, training),
        *answers_warning(rows.tokens.answers_left_out),
    ]


def _scratch(context: Context, model: CheckedModel, original: ResolvedModel | None, rows: _Rows) -> ScratchStatus:
    lora, parameters = context.plan.training.lora, model.resolved.parameters
    assert parameters is not None  # the preflight counts them
    return disk.need(
        context.plan,
        model_bytes=sum(file.size_bytes for file in model.resolved.files),
        parameters=parameters,
        # If config.json does not have the model's sizes, the adapter, a small part, is not counted.
        adapter_parameters=model.shape.adapter_parameters(lora.rank, lora.target_modules) if model.shape else 0,
        rows_bytes=rows.tokenized.stat().st_size,
        original_bytes=sum(file.size_bytes for file in original.files) if original else 0,
    )


def _upload(context: Context, description: Prepared, rows: _Rows, seconds: float) -> None:
    context.reporter.report("Uploading")
    folder = context.layout.run(description.run_id)
    for key, chosen in ((prepared.TRAIN_ROWS, rows.train), (prepared.HOLDOUT_ROWS, rows.held)):
        path = context.scratch / Path(key).name
        parquet_writer.select(rows.tokenized, path, rows.ids(chosen))
        context.store.put_file(f"{folder}/{key}", path)
    sides = Split(train=int(rows.train.sum()), holdout=int(rows.held.sum()))
    report = data_report(rows.findings, rows.requirements(rows.tokens), rows.tokens, sides)
    report = report.model_copy(update={"warnings": _sentences(context, rows)})
    report_json.add(context.store, folder, data=report, timings={"prepare": seconds})
    # Last, when everything that it describes is there.
    data = description.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    context.store.put_bytes(f"{folder}/{prepared.DESCRIPTION}", data)
