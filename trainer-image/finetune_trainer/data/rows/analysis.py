"""From examples to what is remembered of them: see `table`."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from finetune_trainer.data.checks import echoes, endings, languages, minhash, personal_data, refusals
from finetune_trainer.data.checks.normal_form import normal_form, numbers, without_end
from finetune_trainer.data.rows.example import Example
from finetune_trainer.data.rows.table import COLUMNS, Block, Flag

_ROLES = {"system": 0, "user": 1, "assistant": 2}
_REJECTED, _TEXT = 3, 4
_PERSONAL = {
    "resident number": Flag.RESIDENT_NUMBER,
    "phone": Flag.PHONE,
    "card": Flag.CARD,
    "e-mail": Flag.MAIL,
}
_HASHES = ("exact", "prompt", "question", "opening", "answer", "guard")
_BORDER = "\x1f"


def analyse(source: int, examples: Sequence[Example]) -> tuple[Block, Any]:
    """Return the rows of one source, and how many letters they have by script (see `languages.count`)."""
    import numpy as np

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS if name not in _HASHES}
    hashes: dict[str, list[bytes]] = {name: [] for name in _HASHES}
    pieces: list[list[tuple[int, str]]] = []
    for example in examples:
        texts = _texts(example)
        answer = texts[-1][1] if example.rejected is None else texts[-2][1]
        forms = [(role, normal_form(text)) for role, text in texts]
        row = _Row(example, answer, forms)
        columns["number"].append(example.line)
        columns["row_id"].append(example.row_id)
        columns["characters"].append(sum(len(text) for _, text in texts))
        columns["answer_characters"].append(len(answer))
        columns["flags"].append(row.flags(" ".join(text for _, text in texts)))
        for name, text in row.keys(texts).items():
            hashes[name].append(blake2b(text.encode(), digest_size=8).digest())
        pieces.append(forms)
    columns["source"] = [source] * len(examples)
    letters = "".join(text for forms in pieces for _, text in forms)
    block = Block(
        {name: np.array(values, COLUMNS[name]) for name, values in columns.items()}
        | {name: np.frombuffer(b"".join(digests), np.uint64) for name, digests in hashes.items()},
        minhash.signatures(pieces),
    )
    return block, languages.count(np.frombuffer(letters.encode("utf-32-le"), np.uint32))


def _texts(example: Example) -> list[tuple[int, str]]:
    """Return the texts in their order, each with its role; the answer is last, or before the rejected one."""
    if example.text is not None:
        return [(_TEXT, example.text)]
    found = [(_ROLES[m["role"]], m["content"]) for m in example.messages]
    if example.context:
        found.insert(len(found) - 1, (_ROLES["user"], example.context))
    if example.rejected is not None:
        found.append((_REJECTED, example.rejected))
    return found


class _Row:
    """One example and the normal forms of its texts."""

    def __init__(self, example: Example, answer: str, forms: Sequence[tuple[int, str]]) -> None:
        self._example = example
        self._answer = answer
        self._forms = forms
        plain = example.text is not None
        rest = forms[: -1 if example.rejected is None else -2]
        self._prompts = [] if plain else rest
        self._answer_form = forms[len(rest)][1]
        asked = [form for role, form in rest if role == _ROLES["user"]]
        self._asked = asked
        # A conversation is known by how it begins, an Alpaca row by its instruction and its input.
        first = 2 if example.context else 1
        self._question, self._opening = (
            self._answer_form if plain else _BORDER.join(map(without_end, asked[:n])) for n in (first, 2)
        )

    def flags(self, everything: str) -> int:
        example = self._example
        found = Flag(0)
        if example.rejected is not None or example.label is not None or example.text is not None:
            found |= Flag.OPEN
        if echoes.is_echo(self._answer_form, self._asked):
            found |= Flag.ECHO
        # A bad answer may well be a refusal or cut off.
        if example.label is not False and example.text is None:
            if refusals.is_refusal(self._answer):
                found |= Flag.REFUSAL
            if endings.is_long(self._answer):
                found |= Flag.LONG_ANSWER
                if endings.is_unfinished(self._answer):
                    found |= Flag.UNFINISHED
        for kind in personal_data.kinds(everything):
            found |= _PERSONAL[kind]
        return int(found)

    def keys(self, texts: Sequence[tuple[int, str]]) -> dict[str, str]:
        label = str(self._example.label)
        return {
            "exact": _BORDER.join([label, *(f"{role}{_BORDER}{text}" for role, text in texts)]),
            "prompt": _BORDER.join(form for _, form in self._prompts),
            "question": self._question,
            "opening": self._opening,
            "answer": self._answer_form,
            "guard": _BORDER.join([label, *(numbers(form) for _, form in self._forms)]),
        }
