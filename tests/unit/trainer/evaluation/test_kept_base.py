"""The base is evaluated once per job, and again only if something else is asked of it."""

from pathlib import Path

import pytest

from finetune_trainer.evaluation.generate import Answer
from finetune_trainer.evaluation.kept_base import NAME, BaseEvaluation, KeptBase
from finetune_trainer.methods.interface import Score
from finetune_trainer.storage.folder import FileStore

MEASURED = BaseEvaluation(
    scores=[Score(1 / 3, 0.1, None, (-1.5, -2.25))],
    log_probabilities=[[-0.12345]],
    answers=[Answer("스쿼트", stopped=True)],
    instructed_answers=None,
)
INPUTS = ("run", "bf16", [1, 2], [[3, 4]])


class Base:
    """Counts how often it is measured."""

    def __init__(self, folder: Path) -> None:
        self.store = FileStore(folder)
        self.measured = 0

    def get(self, *inputs: object) -> BaseEvaluation:
        return KeptBase(self.store, "state", inputs or INPUTS).get(self._measure)

    def _measure(self) -> BaseEvaluation:
        self.measured += 1
        return MEASURED


def test_a_second_attempt_gets_exactly_what_the_first_measured(tmp_path: Path) -> None:
    base = Base(tmp_path)
    assert base.get() == base.get() == MEASURED
    assert base.measured == 1


@pytest.mark.parametrize(
    "other",
    [
        ("another run", "bf16", [1, 2], [[3, 4]]),
        ("run", "fp16", [1, 2], [[3, 4]]),
        ("run", "bf16", [1, 3], [[3, 4]]),
        ("run", "bf16", [1, 2], [[3, 5]]),
    ],
)
def test_with_other_inputs_it_is_measured_again(tmp_path: Path, other: tuple[object, ...]) -> None:
    base = Base(tmp_path)
    base.get()
    base.get(*other)
    assert base.measured == 2


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    base = Base(tmp_path)
    base.get()
    base.store.put_bytes(f"state/{NAME}", b"{")
    assert base.get() == MEASURED
    assert base.measured == 2
