"""Chooses the warnings about the data for the status: a few, the most important first."""

from collections.abc import Sequence

from finetune_api.report import CheckReport

_MOST = 8
_MOST_CHARACTERS = 512
# Names that are not listed come last.
_ORDER = (
    "DatasetPartlySeen",
    "ManyEpochs",
    "WarmupTooLong",
    "SmallDataset",
    "TruncatedRows",
    "InvalidRows",
    "HoldoutInTraining",
    "PersonalData",
    "AnswersLeftOut",
    "Refusals",
    "CutOffAnswers",
    "DifferentAnswers",
    "NearDuplicates",
    "ExactDuplicates",
    "AnswerRepeatsPrompt",
    "RepeatedAnswer",
)


def chosen(checks: Sequence[CheckReport], sentences: Sequence[str]) -> list[str]:
    """Return the messages of the checks and `sentences`, cut to what DatasetStatus.warnings can hold.

    Each of `sentences` starts with its CamelCase reason and a colon, and so does each result.
    """
    found = [f"{check.name}: {check.message}" for check in checks] + list(sentences)
    found.sort(key=_rank)
    if len(found) > _MOST:
        left = len(found) - _MOST + 1
        found[_MOST - 1 :] = [f"MoreWarnings: {left} more warnings are in report.json"]
    return [_cut(sentence) for sentence in found]


def _rank(sentence: str) -> int:
    name = sentence.partition(":")[0]
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= _MOST_CHARACTERS else sentence[: _MOST_CHARACTERS - 1] + "…"
