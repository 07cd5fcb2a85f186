"""What methods that learn a preference share.

DPO and ORPO: the row with two answers. Those and KTO: the weight of a short step, the reference policy, and the
settings.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.plan import Plan, PreferencePlan
from finetune_trainer.errors import GuardError
from finetune_trainer.methods.interface import Example, Rendering, TrainingMethod
from finetune_trainer.methods.rows import Row, TokenSequence, question_too_long

REFERENCE = "ref"


@dataclass(frozen=True)
class PreferenceRow(Row):
    """A question with a better and a worse answer, each to its stop token unless truncated."""

    row_id: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    truncated: bool = False

    @property
    def length(self) -> int:
        """Tokens of the question with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def supervised(self) -> int:
        """Tokens of both answers."""
        return len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def sequence(self) -> TokenSequence:
        """The question with the better answer."""
        return TokenSequence.of_answer(self.row_id, self.prompt_ids, self.chosen_ids)

    @property
    def rejected(self) -> TokenSequence:
        """The question with the worse answer."""
        return TokenSequence.of_answer(self.row_id, self.prompt_ids, self.rejected_ids)

    @property
    def answers(self) -> list[tuple[list[int], list[int]]]:
        """The question with the better answer, and with the worse one."""
        return [(self.prompt_ids, self.chosen_ids), (self.prompt_ids, self.rejected_ids)]

    def ends_on(self, stops: Collection[int]) -> bool:
        """See Row."""
        return self.chosen_ids[-1] in stops and self.rejected_ids[-1] in stops


class PairMethod(TrainingMethod[PreferenceRow]):
    """What DPO and ORPO share."""

    formats = ("Preference",)
    row = PreferenceRow

    def columns(self) -> list[tuple[str, Any]]:
        """See TrainingMethod."""
        import pyarrow as pa

        return [(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]

    def encode(self, example: Example, rendering: Rendering) -> PreferenceRow | str:
        """Return the last answer and the rejected one, cut to the room that the question leaves."""
        if example.rejected is None:
            raise GuardError("a row without a rejected answer was to be encoded as a pair")
        prompt, good = rendering.last_answer()
        _, bad = rendering.last_answer(example.rejected)
        maximum = rendering.maximum
        room = maximum - len(prompt)
        if room <= 0:
            return question_too_long(len(prompt), maximum)
        if good[:room] == bad[:room]:
            return (
                f"its two answers are the same in the first {maximum} tokens, which is "
                "model.maxSequenceLength; correct it or raise that"
                if max(len(good), len(bad)) > room
                else "its two answers are the same to the model; correct it"
            )
        return PreferenceRow(example.row_id, prompt, good[:room], bad[:room], max(len(good), len(bad)) > room)


def of(plan: Plan) -> PreferencePlan:
    """Return the method's own settings."""
    assert plan.training.preference is not None
    return plan.training.preference


def dataset(rows: Sequence[PreferenceRow]) -> Any:
    """Return a datasets.Dataset with the rows' token ids."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt_ids": [r.prompt_ids for r in rows],
            "chosen_ids": [r.chosen_ids for r in rows],
            "rejected_ids": [r.rejected_ids for r in rows],
        }
    )


def dropout_disabled(plan: Plan) -> bool:
    """Return whether to switch off all dropout: a noisy policy is no match for its reference. A job may want it."""
    return plan.training.lora.dropout == 0


def weight(rows_in_micro: int, rows_in_step: int, micro_batch_size: int) -> float:
    """Return what to multiply the mean loss of a micro-batch with.

    The library gives every micro-batch of a step the same weight, which is right only where each has as many rows: the
    last one of a run's last, shorter step may not.
    """
    micro_batches = -(-rows_in_step // micro_batch_size)
    return rows_in_micro * micro_batches / rows_in_step


def weighted(trainer_class: Any, step_rows: Sequence[int]) -> Any:
    """Return a subclass whose steps are means over their rows, whatever the micro-batch."""

    class Weighted(trainer_class):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs:
                raise GuardError("the trainer asked for the outputs of a step beside its loss")
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            micro = self.args.per_device_train_batch_size
            return loss * weight(self.rows_of(inputs), step_rows[self.state.global_step], micro)

    return Weighted


def set_reference(model: Any, *, continued: bool) -> None:
    """Use the policy before training as the reference, without a second copy of the base's weights.

    A fresh adapter changes nothing, so the reference is the model without it. For an adapter that is trained further, a
    frozen copy is kept under the name that TRL looks for.
    """
    present = REFERENCE in model.peft_config
    if present and not continued:
        model.delete_adapter(REFERENCE)
    elif continued and not present:
        model.add_adapter(REFERENCE, model.peft_config["default"])
        for name, parameter in model.named_parameters():
            if f".{REFERENCE}." in name:
                parameter.data.copy_(model.get_parameter(name.replace(f".{REFERENCE}.", ".default.")).data)


def drop_reference() -> Any:
    """Return a TrainerCallback that leaves the trained adapter alone on the model."""
    from transformers import TrainerCallback

    class DropReference(TrainerCallback):  # type: ignore[misc]
        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            if REFERENCE in model.peft_config:
                model.delete_adapter(REFERENCE)

    return DropReference()


def log_sigmoid(value: float) -> float:
    """Return log(1 / (1 + exp(-value))) without an overflow."""
    return -math.log1p(math.exp(-value)) if value >= 0 else value - math.log1p(math.exp(value))
