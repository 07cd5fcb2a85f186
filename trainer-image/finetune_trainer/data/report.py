"""The data part of report.json."""

from collections.abc import Sequence

from finetune_api.report import CheckReport, DataReport, Lengths, SourceReport, Split
from finetune_trainer.data import requirements
from finetune_trainer.data.checks import languages, lengths
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.rows.collect import Collected, Source
from finetune_trainer.data.tokenize import Tokens


def notes(collected: Collected) -> list[str]:
    """Return what was done to read the files, one sentence each, which starts with its CamelCase reason."""
    return [note for source in collected.sources for note in source.notes.warnings(source.name)]


def data_report(
    findings: Findings, required: Sequence[CheckReport], tokens: Tokens | None, split: Split | None
) -> DataReport:
    """Return the report. Without `tokens`, lengths are in characters, and checks that need tokens are skipped."""
    collected = findings.collected
    return DataReport(
        sources=[_source(source) for source in collected.sources],
        rows=collected.rows,
        examples=findings.examples,
        checks=[*required, *findings.checks],
        not_checked=[] if tokens else [requirements.TRUNCATED],
        lengths=_lengths(findings, tokens),
        languages=languages.mix(collected.letters) if len(collected.table) else None,
        duplicates=findings.duplicates,
        split=split,
        sample=tokens.sample if tokens else None,
    )


def _source(source: Source) -> SourceReport:
    return SourceReport(
        name=source.name,
        sha256=source.sha256,
        rows=source.rows,
        kind=source.notes.kind,
        encoding=None if source.notes.kind == "Parquet" else source.notes.encoding,
        format=source.row_format or "unknown",
        notes=source.notes.warnings(source.name),
        holdout=source.holdout,
    )


def _lengths(findings: Findings, tokens: Tokens | None) -> Lengths | None:
    if tokens:
        return lengths.summary(tokens.length[findings.kept], "tokens")
    return lengths.summary(findings.collected.table.column("characters")[findings.kept], "characters")
