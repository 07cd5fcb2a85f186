"""The first stage, without a GPU: everything that can fail fails here. It pins the model and tokenizes the data."""

import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.result import StageResult
from finetune_api.status import DatasetStatus, ModelStatus
from finetune_trainer import (
    adapter_source,
    dataset_sources,
    fetch,
    model_preflight,
    prepared,
    reuse,
    run_id,
    template_choice,
)
from finetune_trainer.context import Context
from finetune_trainer.data import arithmetic, collect, files, order, split
from finetune_trainer.data.collect import Collected
from finetune_trainer.data.encoders import Encoder
from finetune_trainer.data.example import Example
from finetune_trainer.data.source_file import SourceFile
from finetune_trainer.data.template import ChatTemplate, Template
from finetune_trainer.data.tokenize import Stops, TokenizedRow, answers_warning, find_stops, question_of
from finetune_trainer.model_preflight import CheckedModel
from finetune_trainer.prepared import Prepared, Question, ResolvedAdapter

_DEFAULT_QUESTIONS = 5
_REPORT_EVERY_ROWS = 200
log = logging.getLogger(__name__)


def run(context: Context) -> StageResult:
    """Check access, data and model, and write `prepared/`.

    Raises:
        StageError: something that the user has to change, or an outage.
    """
    _check_access(context)
    context.reporter.report("Checking")
    plan = context.plan
    sources = dataset_sources.fetch(context, plan.dataset.sources)
    model, template = _check_model(context)
    earlier = adapter_source.resolve(context, model)
    # Before the rows are looked at: an identical job ends here.
    identity = run_id.compute(
        plan,
        model.resolved,
        template.jinja,
        dataset_sources.sha256s(sources),
        dataset_sources.sha256s(dataset_sources.fetch(context, plan.dataset.holdout_sources)),
        earlier,
    )
    if (reused := reuse.find(context, identity)) is not None:
        return reused
    collected = _collect(context, sources)
    stops = find_stops(model.tokenizer, template, model.generation_eos)
    rows = _tokenize(context, collected, model, template, stops)
    return _write(context, identity, earlier, collected, model, template, stops, rows)


def _check_access(context: Context) -> None:
    """Write, read and delete a small object: a wrong key must fail now, not after training."""
    key = f"{context.layout.state}/access-{uuid.uuid4().hex}"
    context.store.put_bytes(key, b"")
    context.store.get_bytes(key)
    context.store.delete(key)


def _collect(context: Context, sources: Sequence[SourceFile]) -> Collected:
    plan = context.plan.dataset
    collected = collect.collect(sources, plan.columns, context.plan.training.method)
    collect.refuse_faults(collected.faults, collected.rows, plan.invalid_rows)
    _require_examples(context, collected)
    return collected


def _require_examples(context: Context, collected: Collected) -> None:
    collect.require_examples(
        len(collected.examples), context.plan.dataset.minimum_examples, len(collected.faults), collected.duplicates
    )


def _check_model(context: Context) -> tuple[CheckedModel, ChatTemplate]:
    with fetch.opened_model(context) as files_of_model:
        listing = files_of_model.listing()
        folder = fetch.fetch_metadata(context, files_of_model, listing)
        context.reporter.report("Checking")
        model = model_preflight.check(context.plan, files_of_model, listing, folder)
        template = template_choice.choose(
            context.plan.dataset,
            model.tokenizer,
            template_choice.Weights(files_of_model, model.tensors),
            model.resolved.reference,
        )
    log.info(
        "model %s (%s), revision %s, template %s",
        model.resolved.reference,
        model.resolved.architecture,
        model.resolved.revision,
        template.kind,
    )
    return model, template


def _tokenize(
    context: Context, collected: Collected, model: CheckedModel, template: ChatTemplate, stops: Stops
) -> list[TokenizedRow]:
    """Return the valid rows; the others join the collected faults and leave the examples."""
    plan = context.plan
    encoder = Encoder(
        model.tokenizer,
        template,
        stops,
        method=plan.training.method,
        system_prompt=plan.dataset.system_prompt,
        maximum=plan.model.max_sequence_length,
        responses_only=plan.training.train_on_responses_only,
    )
    rows: list[TokenizedRow] = []
    kept: list[Example] = []
    for number, example in enumerate(collected.examples):
        if number % _REPORT_EVERY_ROWS == 0:
            context.reporter.report("Tokenizing", percent=100 * number // len(collected.examples))
        row = encoder.encode(example)
        if isinstance(row, str):
            collected.faults.append(f"{example.where}: {row}")
        else:
            assert isinstance(row, TokenizedRow)
            rows.append(row)
            kept.append(example)
    collected.examples[:] = kept
    collect.refuse_faults(collected.faults, collected.rows, plan.dataset.invalid_rows)
    _require_examples(context, collected)
    return rows


def _write(
    context: Context,
    identity: str,
    earlier: ResolvedAdapter | None,
    collected: Collected,
    model: CheckedModel,
    template: ChatTemplate,
    stops: Stops,
    rows: Sequence[TokenizedRow],
) -> StageResult:
    plan = context.plan
    held = split.holdout(collected.examples, plan.dataset.holdout_percent, plan.training.seed)
    train_rows = [r for r in rows if r.row_id not in held]
    holdout_rows = [r for r in rows if r.row_id in held]
    training = plan.training
    steps = order.total_steps(
        len(train_rows), training.batch_size, max_steps=training.max_steps, epochs=training.epochs
    )
    epochs = arithmetic.epochs_planned(len(train_rows), training.batch_size, steps)
    dataset = DatasetStatus(
        examples=len(rows),
        dropped=len(collected.faults) + collected.duplicates,
        holdout=len(holdout_rows),
        supervised_tokens=sum(sum(r.completion_mask) for r in train_rows),
        truncated=sum(r.truncated for r in rows),
        epochs_planned=f"{epochs:.2f}",
        warnings=[
            *collected.warnings,
            *arithmetic.warnings(len(train_rows), len(rows), training.batch_size, steps, collected.composed),
            *answers_warning(sum(r.answers_left_out for r in rows)),
        ],
    )
    description = Prepared(
        run_id=identity,
        model=model.resolved,
        adapter=earlier,
        template=template.kind,
        chat_template=template.jinja,
        system_prompt=plan.dataset.system_prompt,
        stop_token_ids=list(stops.ids),
        stop_strings=list(stops.strings),
        total_steps=steps,
        dataset=dataset,
        questions=_questions(
            plan.evaluation.prompts, [e for e in collected.examples if e.row_id in held], template.kind
        ),
    )
    _upload(context, description, train_rows, holdout_rows)
    return StageResult(
        stage="prepare",
        exit_code=ExitCode.OK,
        run_id=description.run_id,
        dataset=dataset,
        model=ModelStatus(
            revision=model.resolved.revision,
            parameters=model.resolved.parameters,
            architecture=model.resolved.architecture,
            template=template.kind,
            adapter=earlier.uri if earlier else None,
        ),
    )


def _questions(prompts: Sequence[str], held: Sequence[Example], template: Template) -> list[Question]:
    if prompts:
        return [Question(prompt=p) for p in prompts]
    # Rows with a system message of their own come last: a question is asked with the job's.
    ranked = sorted(held, key=lambda e: e.messages[0]["role"] == "system")[:_DEFAULT_QUESTIONS]
    return [
        Question(
            prompt=question_of(example, template),
            reference=next(m["content"] for m in example.messages if m["role"] == "assistant"),
        )
        for example in ranked
    ]


def _upload(
    context: Context, description: Prepared, train_rows: Sequence[TokenizedRow], holdout_rows: Sequence[TokenizedRow]
) -> None:
    context.reporter.report("Uploading")
    folder = context.layout.run(description.run_id)
    for key, rows in ((prepared.TRAIN_ROWS, train_rows), (prepared.HOLDOUT_ROWS, holdout_rows)):
        path = context.scratch / Path(key).name
        files.write(path, rows)
        context.store.put_file(f"{folder}/{key}", path)
    # Last: what it describes is there by then.
    data = description.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    context.store.put_bytes(f"{folder}/{prepared.DESCRIPTION}", data)
