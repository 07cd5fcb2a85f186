"""ORPO: the plain loss on the chosen answer and a preference at once (Hong et al. 2024, arXiv:2403.07691)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import batch_check, preference
from finetune_trainer.methods.common_settings import common
from finetune_trainer.methods.interface import LoadedModel, Progress
from finetune_trainer.methods.rows import PreferenceRow
from finetune_trainer.methods.step_callback import callback


def settings(
    plan: Plan,
    precision: Precision,
    total_steps: int,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the arguments of ORPOConfig."""
    return common(plan, precision, total_steps, folder, memory_settings, processes) | {
        "beta": preference.of(plan).beta,
        "disable_dropout": preference.dropout_disabled(plan),
        "max_completion_length": None,
        "padding_value": None,
        "generate_during_eval": False,
        "is_encoder_decoder": False,
        # Its collator reads columns that no model takes.
        "remove_unused_columns": False,
    }


def build(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[PreferenceRow],
    steps: Sequence[Sequence[int]],
    progress: Progress,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int,
) -> Any:
    """See `methods.build`."""
    # The pinned version is the one that is tested; that a later one may differ is nothing to warn a user of.
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Tokenized(ORPOTrainer):  # type: ignore[misc]
        """Takes the rows as they are, and each row's plain loss as the paper has it."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:  # noqa: ARG002
            return columns(feature)

        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            chosen, rejected, chosen_logits, rejected_logits, _, *rest = super().concatenated_forward(model, batch)
            # TRL's mean is over all tokens of the micro-batch, the question's among them: it changes with the
            # micro-batch. The paper's equation 2 is a row's mean over its answer.
            return (chosen, rejected, chosen_logits, rejected_logits, -chosen.mean(), *rest)

        def rows_of(self, inputs: Any) -> int:
            return len(inputs["chosen_input_ids"])

    trainer = preference.weighted(Tokenized, [len(step) for step in steps])(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        args=ORPOConfig(**settings(plan, loaded.precision, len(steps), folder, memory_settings, processes)),
        train_dataset=preference.dataset(rows),
        callbacks=[callback(progress)],
    )
    names = ["prompt_ids", "chosen_ids", "rejected_ids"]
    trainer.train_dataset = trainer.train_dataset.remove_columns(names).select([i for step in steps for i in step])
    return trainer


def columns(feature: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ORPOTrainer's collator for one row."""
    prompt = list(feature["prompt_ids"])
    made: dict[str, Any] = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for side in ("chosen", "rejected"):
        answer = list(feature[f"{side}_ids"])
        made |= {
            f"{side}_input_ids": prompt + answer,
            f"{side}_attention_mask": [1] * (len(prompt) + len(answer)),
            f"{side}_labels": [batch_check.IGNORED] * len(prompt) + answer,
        }
    return made


def check_batches(trainer: Any, rows: Sequence[PreferenceRow], step: Sequence[int]) -> None:
    """See `methods.check_batches`."""
    names = ("chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels")
    seen: list[tuple[list[int], ...]] = []
    for batch in batch_check.of_step(trainer, len(step)):
        seen += zip(*(batch[name].tolist() for name in names), strict=True)
    batch_check.check_count(len(seen), len(step))
    for (chosen, chosen_labels, rejected, rejected_labels), index in zip(seen, step, strict=True):
        row = rows[index]
        batch_check.check_sequence(row.row_id, chosen, chosen_labels, row.prompt_ids, row.chosen_ids)
        batch_check.check_sequence(row.row_id, rejected, rejected_labels, row.prompt_ids, row.rejected_ids)
