"""How the questions are put to the model, with a model that only counts."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_trainer.evaluation import generate as evaluate
from finetune_trainer.evaluation.questions import longer_outputs
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.sft import SFTRow

torch = pytest.importorskip("torch")

STOP, PAD = 2, 0


class Counting:
    """Answers a prompt with its first token and the stop token; `room` prompts fit the GPU at once."""

    def __init__(self, room: int, complaint: str = "CUDA out of memory. Tried to allocate 2.00 GiB.") -> None:
        self.room, self.complaint = room, complaint
        self.batches: list[int] = []

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def generate(self, *, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        self.batches.append(len(input_ids))
        if len(input_ids) > self.room:
            raise RuntimeError(self.complaint)
        first = [int(row[mask.bool()][0]) for row, mask in zip(input_ids, attention_mask, strict=True)]
        return torch.cat([input_ids, torch.tensor([[token, STOP] for token in first])], dim=1)


@pytest.fixture(autouse=True)
def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("for_inference", "for_training"):
        monkeypatch.setattr(evaluate, name, lambda model: None)


def ask(model: Counting, prompts: list[list[int]]) -> list[str]:
    tokenizer = SimpleNamespace(pad_token_id=PAD, decode=lambda ids, **_: " ".join(map(str, ids)))
    found = evaluate.answers(LoadedModel(model, tokenizer, "fp32"), prompts, [STOP], 4, lambda percent: None)
    assert all(answer.stopped for answer in found)
    return [answer.text for answer in found]


PROMPTS = [[10 + n] * (n + 1) for n in range(9)]


@pytest.mark.parametrize(
    ("room", "batches"), [(8, [8, 1]), (3, [8, 4, 2, 2, 2, 2, 1]), (1, [8, 4, 2, *[1] * 9])], ids=str
)
def test_where_memory_runs_out_fewer_are_asked_at_once(room: int, batches: list[int]) -> None:
    model = Counting(room)
    assert ask(model, PROMPTS) == [str(10 + n) for n in range(9)]
    assert model.batches == batches


@pytest.mark.parametrize(("room", "complaint"), [(0, "CUDA out of memory"), (3, "device-side assert")])
def test_what_does_not_help_is_not_tried(room: int, complaint: str) -> None:
    with pytest.raises(RuntimeError, match=complaint):
        ask(Counting(room, complaint), PROMPTS)


def test_the_answers_that_are_longer_than_the_limit_are_counted_for_every_method() -> None:
    rows = [
        SFTRow(0, [1] * 9, [0] * 4 + [1] * 5),
        SFTRow(1, [1] * 9, [0] * 5 + [1] * 4),
        PreferenceRow(2, [1] * 9, [1] * 5, [1] * 3),
        BinaryRow(3, [1] * 9, [1] * 4, label=True),
    ]
    assert longer_outputs(rows, 4) == 0.5


def test_without_rows_none_are_longer() -> None:
    assert longer_outputs([], 4) == 0.0
