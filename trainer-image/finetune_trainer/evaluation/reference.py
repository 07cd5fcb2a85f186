"""What the trained model predicts, token by token: export compares every GGUF with it.

At least 2,000 tokens of answers are looked at, where the data has them: a mean KL divergence is then known to a few
percent of itself. Hold-out rows come first; training rows fill up what is missing. Of the hold-out and of the training
rows alike, those with short questions come first: every token of a question costs time and proves nothing.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from finetune_api.base import Model
from finetune_trainer.evaluation.generate import autocast
from finetune_trainer.evaluation.logits import POSITIONS_AT_ONCE, logits_returned
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.rows import Row, TokenSequence
from finetune_trainer.model.load import for_training

NAME = "reference.json"
# Most likely tokens that are kept of each position: 87 % of the probability where SmolLM2-135M is asked in Korean.
TOP = 64
_ANSWER_TOKENS = 2000
# With questions: llama.cpp reads 20 tokens of an 8B model a second on two cores, 5 minutes for this many.
_TOKENS = 6000
# A row is cut after so many: the beginning of an answer is predicted as well without its end.
_LONGEST = 1024
# Training rows that are looked through, spread over all.
_TRAINING_ROWS = 2000
# Digits of a log-probability in nats.
_DIGITS = 5
# What tokenizers get wrong: the name is shown when one does.
_PROBES = {
    "Korean": "무릎이 아플 때는 스쿼트 깊이를 줄이고, 발끝과 무릎의 방향을 맞추세요. 뷁, 쀍, 갂도 글자예요!",
    "emoji": "오늘도 화이팅 💪🏽🔥 가족 👨‍👩‍👧‍👦 깃발 🇰🇷 하트 ❤️‍🩹 끝🙂",
    "decomposed Hangul": unicodedata.normalize("NFD", "운동은 꾸준히, 식사는 규칙적으로 하세요."),
    "code": "def reps(n: int) -> list[int]:\n\treturn [i ** 2 for i in range(n) if i % 3 != 0]  # 세트\n\n<br/> && ||",
    "numbers": "3.14159, 2026-11-24, 1,000,000원, +82-10-1234-5678, 0x1F, 99.9%, ½, ⅷ, １２３",
    "whitespace": "하나  둘   셋\n\n\n넷\r\n\t\t다섯\u00a0여섯\u3000일곱 \n 끝",
    "other scripts": "naïve café, Straße, 日本語の文章、中文句子。 Привет, мир! مرحبا — “quotes” don't I'LL",
}


class Prompt(Model):
    """A rendered question and the ids that it was answered from."""

    text: str
    input_ids: list[int]


class Probe(Prompt):
    """A text of a kind that tokenizers get wrong, without special tokens."""

    name: str


class ReferenceRow(Model):
    """One row, and what was predicted for its supervised tokens: each list has an entry for each of them."""

    row_id: int
    # False: the model learned this row.
    holdout: bool = True
    input_ids: list[int]
    completion_mask: list[int]
    # The true token's log-probability before and after training, in nats.
    base: list[float]
    tuned: list[float]
    # The tuned model's most likely tokens, the first one first, and their log-probabilities.
    top_ids: list[list[int]]
    top: list[list[float]]
    # The log-probability of all other tokens together.
    rest: list[float]

    @property
    def positions(self) -> list[int]:
        """Where the supervised tokens are."""
        return [i for i in range(1, len(self.input_ids)) if self.completion_mask[i]]

    @property
    def nll_base(self) -> float:
        """Mean negative log-likelihood before training, in nats."""
        return -sum(self.base) / len(self.base)

    @property
    def nll_tuned(self) -> float:
        """Mean negative log-likelihood after training, in nats."""
        return -sum(self.tuned) / len(self.tuned)


class Reference(Model):
    """`prepared/reference.json`."""

    prompts: list[Prompt]
    probes: list[Probe] = Field(default_factory=list)
    rows: list[ReferenceRow]
    # The model's; small models lose more to rounding.
    parameters: int | None = None


@dataclass(frozen=True)
class Compared:
    """A row to compare on."""

    row: TokenSequence
    holdout: bool


def choose(holdout: Sequence[Row], trained: Sequence[Row]) -> list[Compared]:
    """Return what to compare on, cut to 1,024 tokens: 2,000 tokens of good answers, or 6,000 with the questions.

    A bad answer is left out: a tuned model is not sure of it.
    """
    chosen: list[Compared] = []
    stride = max(1, len(trained) // _TRAINING_ROWS)
    for rows, is_holdout in ((holdout, True), (trained[::stride], False)):
        for row in _by_question(rows):
            if sum(c.row.supervised for c in chosen) >= _ANSWER_TOKENS:
                return chosen
            if not chosen or sum(c.row.length for c in chosen) + row.length <= _TOKENS:
                chosen.append(Compared(row, is_holdout))
    return chosen


def _by_question(rows: Sequence[Row]) -> list[TokenSequence]:
    """Return the usable ones, shortest questions first."""
    good = [row.sequence for row in rows if row.is_good and row.sequence.supervised]
    cut = [row for row in map(_cut, good) if row.supervised]
    # All questions are long: one answer is better than none.
    cut = cut or sorted(good, key=lambda row: row.length)[:1]
    return sorted(cut, key=lambda row: row.length - row.supervised)


def _cut(row: TokenSequence) -> TokenSequence:
    return replace(row, input_ids=row.input_ids[:_LONGEST], completion_mask=row.completion_mask[:_LONGEST])


def probes(tokenizer: Any) -> list[Probe]:
    """Return how the tokenizer splits the bundled texts.

    Some tokenizers compose Hangul before they split it, and llama.cpp never does: such a text is compared composed.
    """
    found = []
    for name, text in _PROBES.items():
        ids = _ids(tokenizer, text)
        composed = unicodedata.normalize("NFC", text)
        found.append(Probe(name=name, text=composed if _ids(tokenizer, composed) == ids else text, input_ids=ids))
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def log_probabilities(
    loaded: LoadedModel, rows: Sequence[Compared], advance: Callable[[int], None]
) -> list[list[float]]:
    """Return row by row the log-probability of each supervised token, in nats."""
    found = []
    for row, parts in _predicted(loaded, rows, advance):
        values: list[float] = []
        for scores, wanted in parts:
            values += _rounded(scores.gather(1, wanted[:, None])[:, 0] - scores.logsumexp(dim=1))
        found.append(values)
        assert len(values) == row.supervised
    return found


def compare(
    loaded: LoadedModel, rows: Sequence[Compared], base: Sequence[Sequence[float]], advance: Callable[[int], None]
) -> list[ReferenceRow]:
    """Return what the trained model predicts; `base` is of `log_probabilities` before training."""
    found = []
    for compared, before, (row, parts) in zip(rows, base, _predicted(loaded, rows, advance), strict=True):
        made = ReferenceRow(
            row_id=row.row_id,
            holdout=compared.holdout,
            input_ids=row.input_ids,
            completion_mask=row.completion_mask,
            base=list(before),
            tuned=[],
            top_ids=[],
            top=[],
            rest=[],
        )
        for scores, wanted in parts:
            total = scores.logsumexp(dim=1)
            top, ids = scores.topk(min(TOP, scores.shape[1] - 1), dim=1)
            made.tuned.extend(_rounded(scores.gather(1, wanted[:, None])[:, 0] - total))
            made.top_ids.extend(ids.tolist())
            made.top.extend(map(_rounded, top - total[:, None]))
            # Computed from the other tokens: 1 - sum would be only rounding where the model is sure.
            made.rest.extend(_rounded(scores.scatter(1, ids, float("-inf")).logsumexp(dim=1) - total))
        found.append(made)
    return found


def _predicted(
    loaded: LoadedModel, rows: Sequence[Compared], advance: Callable[[int], None]
) -> Iterator[tuple[TokenSequence, Iterator[tuple[Any, Any]]]]:
    """Yield each row with its logits in 32 bit and the true ids, of a few supervised positions at a time."""
    import torch

    for_training(loaded.model)
    loaded.model.eval()
    device = next(loaded.model.parameters()).device
    with torch.no_grad(), autocast(loaded), logits_returned():
        for done, compared in enumerate(rows):
            row = compared.row
            ids = torch.tensor([row.input_ids], device=device)
            at = torch.tensor([i for i in range(1, row.length) if row.completion_mask[i]], device=device)
            logits = loaded.model(input_ids=ids).logits[0]
            yield row, ((logits[part - 1].float(), ids[0, part]) for part in at.split(POSITIONS_AT_ONCE))
            advance(100 * (done + 1) // len(rows))


def _rounded(values: Any) -> list[float]:
    return [round(value, _DIGITS) for value in values.tolist()]
