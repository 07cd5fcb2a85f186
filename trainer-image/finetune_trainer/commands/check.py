"""`prepare --check`: prepare's report on dataset files, without a plan, a model or a cluster."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from finetune_api.dataset_spec import COLUMNS, HOLDOUT_PERCENT, DatasetChecks, DatasetFormat
from finetune_api.exit_codes import ExitCode
from finetune_api.model_spec import ModelSpec
from finetune_api.plan import DatasetPlan, Defaults
from finetune_api.render import render
from finetune_api.report import CheckReport, DataReport, Report, Split
from finetune_api.training_spec import Method, TrainingSpec
from finetune_trainer.commands import check_report
from finetune_trainer.commands import job_file as job_files
from finetune_trainer.data import requirements
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.report import data_report
from finetune_trainer.data.rows import collect
from finetune_trainer.data.split import holdout_rows
from finetune_trainer.data.tokenize import Tokens
from finetune_trainer.errors import DatasetError, SettingsError
from finetune_trainer.sources.dataset_file import local_file

# The settings of a job that leaves them out.
_MAXIMUM = ModelSpec.model_fields["max_sequence_length"].default
_METHOD = TrainingSpec.model_fields["method"].default
_SEED = TrainingSpec.model_fields["seed"].default
_CHECKS = DatasetChecks()
_DATASET = DatasetPlan(
    sources=[],
    format="Auto",
    prompt_template="Auto",
    minimum_examples=_CHECKS.minimum_examples,
    invalid_rows=_CHECKS.invalid_rows,
    duplicates=_CHECKS.duplicates,
    truncation=_CHECKS.truncation,
    holdout_percent=HOLDOUT_PERCENT,
)
_LINES = {".jsonl", ".ndjson"}


@dataclass(frozen=True)
class Settings:
    """What a job decides about its rows."""

    dataset: DatasetPlan = _DATASET
    maximum: int = _MAXIMUM
    # None: whatever the rows are for.
    method: Method | None = None
    seed: int = _SEED
    responses_only: bool = True

    @classmethod
    def of(cls, job_file: Path | None) -> Self:
        """Return the settings of a job's file; None: those of a job that leaves them out.

        Raises:
            SettingsError: it is no valid FineTuneJob, or needs a cluster.
        """
        if job_file is None:
            return cls()
        plan = render(job_files.read(job_file), Defaults())
        if plan.dataset.template_file is not None:
            raise SettingsError(
                "spec.dataset.templateRef is a ConfigMap, which only a cluster has; choose a promptTemplate instead"
            )
        training = plan.training
        return cls(
            plan.dataset,
            plan.model.max_sequence_length,
            training.method,
            training.seed,
            training.train_on_responses_only,
        )


@dataclass(frozen=True)
class Request:
    """The options of the check."""

    files: Sequence[Path]
    # None: as the job has it.
    row_format: DatasetFormat | None = None
    # ours=theirs
    columns: Sequence[str] = ()
    tokenizer: Path | None = None
    json: Path | None = None
    job: Path | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return the values of the options of `add_options`."""
        return cls(
            arguments.check, arguments.format, arguments.column, arguments.tokenizer, arguments.json, arguments.job
        )


def run(request: Request, scratch: Path) -> int:
    """Print the report, and write it to `request.json` if it is set; return prepare's exit code.

    Raises:
        StageError: a file or an option is wrong.
    """
    settings = Settings.of(request.job)
    columns = {**settings.dataset.columns, **_columns(request.columns)}
    for path in [*request.files, *([request.tokenizer] if request.tokenizer else [])]:
        if not path.exists():
            raise SettingsError(f"{path} does not exist")
    for path in request.files:
        if path.is_dir():
            raise SettingsError(f"{path} is a folder; name the files in it")
    data = _examine(request, settings, columns, scratch)
    sys.stdout.write(check_report.text(data, maximum=settings.maximum, from_job=request.job is not None))
    if request.json:
        report = Report(data=data).model_dump_json(by_alias=True, exclude_none=True, indent=1)
        try:
            request.json.write_text(report + "\n", encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"--json {request.json} cannot be written: {error.strerror}") from error
    return ExitCode.DATASET if any(c.severity == "Fail" for c in data.checks) else ExitCode.OK


def _columns(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        ours, equals, theirs = pair.partition("=")
        if not equals or not theirs or ours not in COLUMNS:
            raise SettingsError(
                f'--column "{pair}" must be OURS=THEIRS, such as output=answer; ours are {", ".join(COLUMNS)}'
            )
        found[ours] = theirs
    return found


def _examine(request: Request, settings: Settings, columns: dict[str, str], scratch: Path) -> DataReport:
    dataset = settings.dataset
    formats = _formats(request, dataset)
    sources = [local_file(str(path), path, row_format) for path, row_format in zip(request.files, formats, strict=True)]
    spool = scratch / "spool" if request.tokenizer else None
    if spool:
        spool.mkdir()
    with _bar("checking", _expected(request.files)) as bar:
        collected = collect.collect(sources, columns, settings.method, spool=spool, advance=bar.update)
    findings = Findings(collected, dataset.duplicates)
    tokens = _tokenize(findings, settings, request.tokenizer, spool, scratch) if request.tokenizer and spool else None
    if tokens and dataset.truncation == "Drop":
        findings.drop(tokens.truncated)
    found = requirements.checks(findings, tokens.truncated if tokens else None, dataset, settings.maximum)
    split: Split | None = None
    if dataset.holdout_sources:
        # They are not among the files, and hold out no row of these.
        return data_report(findings, found, tokens, split)
    try:
        held = int(holdout_rows(findings, dataset.holdout_percent, settings.seed, own=False).sum())
        split = Split(train=findings.examples - held, holdout=held)
    except DatasetError as error:
        if not any(check.severity == "Fail" for check in found):
            found.append(CheckReport(name="NoHoldout", severity="Fail", count=findings.examples, message=error.message))
    return data_report(findings, found, tokens, split)


def _formats(request: Request, dataset: DatasetPlan) -> list[DatasetFormat]:
    """Return the format of each file: the option's, else its source's in the job, else the job's."""
    if request.row_format is not None:
        return [request.row_format] * len(request.files)
    if len(request.files) == len(dataset.sources):
        return [source.format for source in dataset.sources]
    return [dataset.format] * len(request.files)


def _tokenize(findings: Findings, settings: Settings, folder: Path, spool: Path, scratch: Path) -> Tokens:
    from transformers import AutoTokenizer

    from finetune_trainer.data.tokenize import tokenize
    from finetune_trainer.data.tokens.encoder import Encoder
    from finetune_trainer.data.tokens.stop_tokens import find_stops
    from finetune_trainer.prepare import template_choice

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--tokenizer {folder} is not a folder with a tokenizer, such as tokenizer.json") from error
    template = template_choice.choose(settings.dataset, tokenizer, None, str(folder))
    method = findings.collected.method or _METHOD
    stops = find_stops(tokenizer, template, ())
    encoder = Encoder(
        tokenizer,
        template,
        stops,
        method=method,
        system_prompt=settings.dataset.system_prompt,
        maximum=settings.maximum,
        responses_only=settings.responses_only,
    )
    with _bar("tokenizing", len(findings.collected.table)) as bar:
        return tokenize(encoder, tokenizer, findings, spool, scratch / "rows.parquet", bar.update)


def _expected(files: Sequence[Path]) -> int | None:
    """Return about how many rows there are, or None if that is not cheap to know."""
    if any(path.suffix not in _LINES for path in files):
        return None
    total = 0
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total += block.count(b"\n")
    return total


def _bar(what: str, total: int | None) -> Any:
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=" rows", leave=False, file=sys.stderr, disable=None)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the check to the command `prepare`."""
    group = command.add_argument_group(
        "check",
        "Check dataset files without a plan, a model or a cluster, with the settings of a job, or its defaults.",
    )
    group.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="print prepare's report on FILE")
    group.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="count tokens with the tokenizer in this folder; else characters"
    )
    group.add_argument(
        "--format",
        choices=get_args(DatasetFormat),
        help="format of the rows (default: the job's, else detected from the first row)",
    )
    group.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help="how your file names a field; repeatable"
    )
    group.add_argument(
        "--job", type=Path, metavar="FILE", help="take the settings from this FineTuneJob; the other options win"
    )
    group.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
