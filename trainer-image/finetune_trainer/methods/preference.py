"""What DPO, ORPO and KTO share: the weight of a short step, the reference policy, and their settings."""

from collections.abc import Sequence
from typing import Any

from finetune_api.plan import Plan, PreferencePlan
from finetune_trainer.methods.rows import PreferenceRow

REFERENCE = "ref"


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
            assert not return_outputs
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            micro = self.args.per_device_train_batch_size
            return loss * weight(self.rows_of(inputs), step_rows[self.state.global_step], micro)

    return Weighted


def set_reference(model: Any, *, continued: bool) -> None:
    """Make the policy before training the reference, without a second copy of the base's weights.

    A fresh adapter changes nothing, so the reference is the model without it. Of an adapter that is trained further, a
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
