"""Flags for obvious faults of an answer, from its text alone."""

from collections.abc import Iterable

from finetune_api.report import AnswerFlag, AnswerReport
from finetune_trainer.data.checks import languages

# Share of repeated n-grams, as seq-rep-n of Welleck et al., "Neural Text Generation with Unlikelihood Training" (2020),
# over characters, since Korean has few spaces. Ordinary prose stays below 0.1, an answer that repeats itself comes
# close to 1.
_NGRAM = 12
_REPEATED = 0.5
_LOOP_WINDOW = 240
_SHORTEST_LOOP = 40
# The question, as a share of the letters and digits of an answer that adds nothing to it.
_ECHOED_SHARE = 0.8
# The verbatim part of a training answer, as a share of the answer. Shorter parts are common phrases.
_COPIED_SHARE = 0.6
_SHORTEST_COPY = 40
# Shares of the letters. Below the first, the expected script counts as missing; from the second on, a text is written
# in one script.
_FEW_LETTERS = 0.2
_MOST_LETTERS = 0.6
_ENOUGH_LETTERS = 12


def flags(
    answer: str, *, stopped: bool | None, question: str, reference: str | None, training_answers: Iterable[str]
) -> list[AnswerFlag]:
    """Return the flags of `answer`, the worst first.

    `stopped`: it ended with a stop token; None: not known. The expected language is that of the reference,
    or else of the question.
    `training_answers` is read at most once.
    """
    text = _normal(answer)
    if not text:
        return ["Empty"]
    found: list[AnswerFlag] = []
    if repeats_question(text, question) and not repeats_question(reference or "", question):
        found.append("RepeatsQuestion")
    if loops(text):
        found.append("Loop")
    if wrong_language(text, reference or question):
        found.append("WrongLanguage")
    if stopped is False:
        found.append("NoStop")
    if copied(text, training_answers):
        found.append("Copied")
    return found


def of_file(answer: str, stopped: bool | None, report: AnswerReport) -> list[AnswerFlag]:
    """Return the flags of a GGUF file's answer to the question of `report`; `stopped` as in `flags`.

    The same text as the trained model's has the same flags: those that the text alone does not show as well.
    """
    if _normal(answer) == _normal(report.tuned):
        return list(report.flags.tuned)
    return flags(answer, stopped=stopped, question=report.prompt, reference=report.reference, training_answers=())


def repeats_question(answer: str, question: str) -> bool:
    """Return whether the answer is hardly more than the question, however it is spelt."""
    given, asked = _letters(answer), _letters(question)
    return bool(asked) and asked in given and len(asked) >= _ECHOED_SHARE * len(given)


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def loops(text: str) -> bool:
    """Return whether a part of the text repeats itself."""
    if len(text) < _SHORTEST_LOOP:
        return False
    starts = range(0, max(1, len(text) - _LOOP_WINDOW // 2), _LOOP_WINDOW // 2)
    return any(_repetition(text[start : start + _LOOP_WINDOW]) >= _REPEATED for start in starts) or (
        _repetition(text) >= _REPEATED
    )


def _repetition(text: str) -> float:
    grams = [text[i : i + _NGRAM] for i in range(len(text) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied(text: str, training_answers: Iterable[str]) -> bool:
    """Return whether most of the text is in one training answer, word for word."""
    length = max(int(len(text) * _COPIED_SHARE), _SHORTEST_COPY)
    if len(text) < length:
        return False
    # Every part of that length contains the middle.
    first, last = len(text) - length, length
    middle = text[first:last] if first < last else text[:1]
    for training in training_answers:
        normal = _normal(training)
        if middle in normal and any(text[i : i + length] in normal for i in range(first + 1)):
            return True
    return False


def wrong_language(text: str, expected: str) -> bool:
    """Return whether the text has hardly any letters of the script that `expected` is written in."""
    wanted, found = _scripts(expected), _scripts(text)
    letters = sum(found)
    if not sum(wanted) or letters < _ENOUGH_LETTERS:
        return False
    script = wanted.index(max(wanted))
    if wanted[script] < _MOST_LETTERS * sum(wanted):
        return False
    return found[script] < _FEW_LETTERS * letters


def _scripts(text: str) -> list[int]:
    import numpy as np

    return [int(n) for n in languages.count(np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32))]


def _normal(text: str) -> str:
    return " ".join(text.split())
