"""Which hold-out rows export compares on."""

from finetune_trainer.reference import choose
from finetune_trainer.training_rows import BinaryRow, PreferenceRow, SFTRow


def sft(row_id: int, length: int = 4) -> SFTRow:
    return SFTRow(row_id, [7] * length, [0] + [1] * (length - 1))


def test_the_first_rows_that_are_not_long_are_chosen() -> None:
    rows = [sft(0, 2000), *(sft(n) for n in range(1, 30))]

    assert [row.row_id for row in choose(rows)] == list(range(1, 17))


def test_the_shortest_is_chosen_if_all_are_long() -> None:
    assert [row.row_id for row in choose([sft(0, 3000), sft(1, 2000)])] == [1]


def test_rows_without_learned_tokens_are_left_out() -> None:
    assert choose([SFTRow(0, [7, 8], [0, 0])]) == []


def test_of_a_pair_the_better_answer_counts() -> None:
    assert choose([PreferenceRow(5, [1, 2], [3, 4], [9, 9])]) == [SFTRow(5, [1, 2, 3, 4], [0, 0, 1, 1])]


def test_a_bad_answer_is_not_compared() -> None:
    rows = [BinaryRow(5, [1], [9], label=False), BinaryRow(6, [1], [3], label=True)]

    assert choose(rows) == [SFTRow(6, [1, 3], [0, 1])]
