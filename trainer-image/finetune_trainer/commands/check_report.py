"""The report of the data as text for a terminal."""

import textwrap
import unicodedata
from collections.abc import Iterator

from finetune_api.report import CheckReport, DataReport, Lengths

_WIDTH = 100
_BAR = 40
_NAME = 32
_SEVERITIES = ("Fail", "Drop", "Warn")


def text(data: DataReport, *, maximum: int, from_job: bool = False) -> str:
    """Return the report, in lines of at most 100 columns.

    `maximum`: model.maxSequenceLength, `from_job` or the default.
    """
    return (
        "\n".join(
            [
                *_sources(data),
                "",
                *_figures(data),
                "",
                *_checks(data, maximum, "the job's" if from_job else "the default"),
            ]
        )
        + "\n"
    )


def _sources(data: DataReport) -> Iterator[str]:
    yield f"{_padded('source', _NAME)}  {'rows':>11}  {'format':<16}  file"
    for source in data.sources:
        file = f"{source.kind}, {source.encoding}" if source.encoding else source.kind
        yield f"{_padded(_end(source.name), _NAME)}  {source.rows:>11,}  {source.format:<16}  {file}"
        for note in source.notes:
            yield from textwrap.wrap(note, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _figures(data: DataReport) -> Iterator[str]:
    sides = f": {data.split.train:,} to train on, {data.split.holdout:,} held out" if data.split else ""
    yield f"{data.rows:,} rows, {data.examples:,} used{sides}"
    if data.languages:
        mix = data.languages
        yield f"letters: {mix.hangul:.1%} Hangul, {mix.latin:.1%} Latin, {mix.other:.1%} other"
    if data.lengths:
        yield from _histogram(data.lengths)


def _histogram(lengths: Lengths) -> Iterator[str]:
    yield (
        f"length in {lengths.unit}: {lengths.minimum:,} shortest, {lengths.median:,} median, "
        f"{lengths.p95:,} in 95 of 100 at most, {lengths.maximum:,} longest"
    )
    most = max(b.count for b in lengths.histogram)
    for found in lengths.histogram:
        bar = "#" * round(_BAR * found.count / most)
        yield f"  to {found.up_to:>9,}  {bar:<{_BAR}}  {found.count:,}"


def _checks(data: DataReport, maximum: int, whose: str) -> Iterator[str]:
    for check in sorted(data.checks, key=lambda c: _SEVERITIES.index(c.severity)):
        yield from _check(check)
    if data.not_checked:
        yield f"not checked: give --tokenizer ({', '.join(data.not_checked)})"
    else:
        yield f"tokens counted against model.maxSequenceLength {maximum:,}, {whose}"
    failed = any(c.severity == "Fail" for c in data.checks)
    yield "prepare would reject this dataset" if failed else "prepare would accept this dataset"


def _check(check: CheckReport) -> Iterator[str]:
    start = f"{check.severity.upper()}  {check.name}: "
    yield from textwrap.wrap(start + check.message, _WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False)


def _end(name: str) -> str:
    """Return the end of a long name, where paths differ."""
    while _columns(name) > _NAME:
        name = "…" + name[2:]
    return name


def _padded(name: str, width: int) -> str:
    return name + " " * (width - _columns(name))


def _columns(name: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in name)
