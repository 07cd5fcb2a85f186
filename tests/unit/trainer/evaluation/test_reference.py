"""Which rows export compares on, and which texts its tokenizer has to split."""

import unicodedata
from typing import Any

from finetune_trainer.evaluation.reference import choose, probes
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.rows import TokenSequence
from finetune_trainer.methods.sft import SFTRow


def sft(row_id: int, answer: int = 3, question: int = 1) -> SFTRow:
    return SFTRow(row_id, [7] * (question + answer), [0] * question + [1] * answer)


def chosen(holdout: list[Any], trained: list[Any] | None = None) -> list[TokenSequence]:
    return [compared.row for compared in choose(holdout, trained or [])]


def test_holdout_rows_are_taken_until_there_are_2000_tokens_of_answers() -> None:
    assert [row.row_id for row in chosen([sft(n, answer=300) for n in range(30)])] == list(range(7))


def test_training_rows_fill_up_what_the_holdout_rows_lack() -> None:
    found = choose([sft(0, answer=900)], [sft(n, answer=900) for n in (5, 6, 7)])

    assert [(c.row.row_id, c.holdout) for c in found] == [(0, True), (5, False), (6, False)]


def test_short_questions_come_first() -> None:
    assert [row.row_id for row in chosen([sft(0, question=50), sft(1, question=5)])] == [1, 0]


def test_long_questions_end_the_choice_before_there_are_enough_answers() -> None:
    rows = [sft(n, answer=10, question=900) for n in range(30)]

    assert sum(row.length for row in chosen(rows)) == 6 * 910


def test_a_long_row_is_cut() -> None:
    (row,) = chosen([sft(0, answer=1500)])

    assert (row.length, row.supervised) == (1024, 1023)


def test_the_shortest_is_chosen_whole_if_all_questions_are_long() -> None:
    (row,) = chosen([sft(0, question=3000), sft(1, question=2000)])

    assert (row.row_id, row.length) == (1, 2003)


def test_rows_without_learned_tokens_are_left_out() -> None:
    assert chosen([SFTRow(0, [7, 8], [0, 0])]) == []


def test_of_a_pair_the_better_answer_counts() -> None:
    assert chosen([PreferenceRow(5, [1, 2], [3, 4], [9, 9])]) == [TokenSequence(5, [1, 2, 3, 4], [0, 0, 1, 1])]


def test_a_bad_answer_is_not_compared() -> None:
    rows = [BinaryRow(5, [1], [9], label=False), BinaryRow(6, [1], [3], label=True)]

    assert chosen(rows) == [TokenSequence(6, [1, 3], [0, 1])]


def test_the_probes_have_decomposed_hangul_where_the_tokenizer_tells_it_apart() -> None:
    def plain(text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(c) for c in text]}

    found = {probe.name: probe for probe in probes(plain)}

    assert not unicodedata.is_normalized("NFC", found["decomposed Hangul"].text)


def test_a_tokenizer_that_composes_is_compared_on_composed_text() -> None:
    def composing(text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in unicodedata.normalize("NFC", text)]}

    for probe in probes(composing):
        assert unicodedata.is_normalized("NFC", probe.text)
        assert probe.input_ids == [ord(c) for c in probe.text]
