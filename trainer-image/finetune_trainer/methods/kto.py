"""KTO: learn from answers marked good or bad (Ethayarajh et al. 2024, arXiv:2402.01306)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import batch_check, preference
from finetune_trainer.methods.common_settings import common
from finetune_trainer.methods.interface import LoadedModel, Progress
from finetune_trainer.methods.rows import BinaryRow
from finetune_trainer.methods.step_callback import callback


def settings(
    plan: Plan,
    precision: Precision,
    total_steps: int,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the arguments of KTOConfig."""
    chosen = preference.of(plan)
    return common(plan, precision, total_steps, folder, memory_settings, processes) | {
        "beta": chosen.beta,
        "desirable_weight": chosen.desirable_weight,
        "undesirable_weight": chosen.undesirable_weight,
        "loss_type": "kto",
        "disable_dropout": preference.dropout_disabled(plan),
        "pad_to_multiple_of": None,
        "precompute_ref_log_probs": False,
        "sync_ref_model": False,
        "activation_offloading": False,
        "remove_unused_columns": True,
    }


def mismatched(rows: Sequence[BinaryRow]) -> list[tuple[list[int], list[int]]]:
    """Return each row's prompt with the answer of the row before it: what the KL term is estimated on."""
    return [(row.prompt_ids, rows[i - 1].completion_ids) for i, row in enumerate(rows)]


def build(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[BinaryRow],
    steps: Sequence[Sequence[int]],
    progress: Progress,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int,
) -> Any:
    """See `methods.build`."""
    import torch
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    class Tokenized(KTOTrainer):  # type: ignore[misc]
        """Takes the rows as they are, and estimates the KL term once for a whole optimizer step.

        TRL estimates it on each micro-batch, whose size would then change the result.
        """

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
            return dataset

        def rows_of(self, inputs: Any) -> int:
            return len(inputs["input_ids"])

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            # TRL asks for the policy's first, then for the reference's.
            self._kl_of = iter(("policy", "reference"))
            return super()._compute_loss(model, inputs, return_outputs)

        def _compute_kl_logps(self, model: Any, batch: Any) -> Any:  # noqa: ARG002
            """Return the mean over the step's mismatched pairs. Shape: (1,)."""
            of, step = next(self._kl_of), self.state.global_step
            known: dict[tuple[str, int], Any] = getattr(self, "_kl_known", {})
            if (of, step) not in known:
                found = [
                    super(Tokenized, self)._compute_kl_logps(model, self._prepare_inputs(part))
                    for part in self._kl_batches(step)
                ]
                known = {key: value for key, value in known.items() if key[1] == step}
                self._kl_known = known | {(of, step): torch.cat(found).mean(dim=0, keepdim=True)}
            return self._kl_known[of, step]

        def _kl_batches(self, step: int) -> Iterator[Any]:
            pairs = mismatched([rows[index] for index in steps[step]])
            micro = self.args.per_device_train_batch_size
            for start in range(0, len(pairs), micro):
                yield self.data_collator(
                    [
                        {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": answer, "label": True}
                        for prompt, answer in pairs[start : start + micro]
                    ]
                )

    dataset = Dataset.from_dict(
        {
            "prompt_ids": [r.prompt_ids for r in rows],
            "completion_ids": [r.completion_ids for r in rows],
            "label": [r.label for r in rows],
        }
    )
    args = KTOConfig(**settings(plan, loaded.precision, len(steps), folder, memory_settings, processes))
    # TRL refuses a micro-batch of 1, because its own KL term would be meaningless there.
    args.per_device_train_batch_size = max(2, memory_settings.micro_batch_size)
    trainer = preference.weighted(Tokenized, [len(step) for step in steps])(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        args=args,
        train_dataset=dataset.select([index for step in steps for index in step]),
        callbacks=[callback(progress), preference.drop_reference()],
    )
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = memory_settings.micro_batch_size
    preference.set_reference(loaded.model, continued=plan.model.adapter is not None)
    return trainer


def check_batches(trainer: Any, rows: Sequence[BinaryRow], step: Sequence[int]) -> None:
    """See `methods.check_batches`."""
    seen: list[tuple[list[int], list[int], bool]] = []
    for batch in batch_check.of_step(trainer, len(step)):
        found = batch_check.labels_of(batch["input_ids"], batch["completion_mask"])
        seen += zip(batch["input_ids"].tolist(), found, batch["label"].tolist(), strict=True)
    batch_check.check_count(len(seen), len(step))
    for (ids, labels, label), index in zip(seen, step, strict=True):
        row = rows[index]
        batch_check.check_sequence(row.row_id, ids, labels, row.prompt_ids, row.completion_ids)
        assert bool(label) == row.label, f"row {row.row_id} reaches the model with the other label"
