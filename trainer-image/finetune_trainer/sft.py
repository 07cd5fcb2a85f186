"""TRL's SFTTrainer with every setting explicit, over rows whose order is fixed before it starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer.evaluate import Row
from finetune_trainer.load_model import LoadedModel, checkpointing
from finetune_trainer.training_progress import TrainingProgress

_OPTIMIZERS = {"AdamW8bit": "adamw_8bit", "AdamW": "adamw_torch_fused"}
# transformers' name for "constant after warmup".
_SCHEDULES = {"Linear": "linear", "Cosine": "cosine", "Constant": "constant_with_warmup"}


def settings(plan: Plan, precision: str, total_steps: int, folder: Path) -> dict[str, Any]:
    """Return the arguments of SFTConfig. Unsloth's defaults differ from TRL's, so none is left to either."""
    training = plan.training
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.batch_size // training.micro_batch_size,
        "max_steps": total_steps,
        "num_train_epochs": 1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": _SCHEDULES[training.learning_rate_schedule],
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": _OPTIMIZERS[training.optimizer],
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": precision == "fp32",
        "seed": training.seed,
        "data_seed": training.seed,
        "gradient_checkpointing": bool(checkpointing(training.gradient_checkpointing)),
        "activation_offloading": False,
        "loss_type": "nll",
        "completion_only_loss": True,
        "assistant_only_loss": False,
        "max_length": plan.model.max_sequence_length,
        "truncation_mode": "keep_start",
        "packing": False,
        "eval_packing": False,
        # Without a varlen attention kernel it is slower than padding, and not every torch here has one.
        "padding_free": False,
        "shuffle_dataset": False,
        "train_sampling_strategy": "sequential",
        "dataset_num_proc": None,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
        "remove_unused_columns": True,
        "auto_find_batch_size": False,
        "torch_empty_cache_steps": None,
        "torch_compile": False,
        "use_liger_kernel": False,
        "ignore_data_skip": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        # Otherwise a loss that is no number would be replaced by the mean of the others.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "eval_strategy": "no",
        # Checkpoints are asked for step by step: see TrainingProgress.
        "save_strategy": "no",
        "save_total_limit": 1,
        "save_only_model": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
    }


def ordered(rows: Sequence[Row], steps: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the rows of each step by length, so that a micro-batch, a slice of them, needs little padding."""
    return [sorted(step, key=lambda index: (len(rows[index].input_ids), index)) for step in steps]


def build(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[Row],
    steps: Sequence[Sequence[int]],
    progress: TrainingProgress,
    folder: Path,
) -> Any:
    """Return the trainer; its dataset is the rows of step 0, then of step 1, and so on."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    dataset = Dataset.from_dict(
        {"input_ids": [r.input_ids for r in rows], "completion_mask": [r.completion_mask for r in rows]}
    )
    trainer = SFTTrainer(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        args=SFTConfig(**settings(plan, loaded.precision, len(steps), folder)),
        train_dataset=dataset,
        callbacks=[_callback(progress)],
    )
    if len(trainer.train_dataset) != len(rows):
        raise AssertionError("the trainer dropped rows")
    trainer.train_dataset = trainer.train_dataset.select([index for step in steps for index in step])
    return trainer


def check_batches(trainer: Any, rows: Sequence[Row], step: Sequence[int]) -> None:
    """Assert that the first optimizer step learns exactly the rows and tokens that prepare chose.

    Raises:
        AssertionError: a library changed rows, order or masks.
    """
    micro, accumulation = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    batches = iter(trainer.get_train_dataloader())
    seen: list[tuple[list[int], list[int]]] = []
    for _ in range(min(accumulation, -(-len(step) // micro))):
        batch = next(batches)
        for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            seen.append((ids, labels))
    assert len(seen) == len(step), f"the first step has {len(seen)} rows instead of {len(step)}"
    for (ids, labels), index in zip(seen, step, strict=True):
        row = rows[index]
        length = len(row.input_ids)
        wanted = [token if m else -100 for token, m in zip(row.input_ids, row.completion_mask, strict=True)]
        assert ids[:length] == row.input_ids, f"row {row.row_id} reaches the model changed"
        # The first label is never predicted, and a collator may mask it.
        assert labels[1:length] == wanted[1:], f"row {row.row_id} is learned at other tokens than prepare chose"
        assert all(label == -100 for label in labels[length:]), f"row {row.row_id}: padding would be learned"


def _callback(progress: TrainingProgress) -> Any:
    from transformers import TrainerCallback

    class Boundary(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            progress.step_begins(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            decision = progress.step_ends(state.global_step)
            control.should_save = decision.save
            control.should_training_stop = control.should_training_stop or decision.stop

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs:
                progress.logged(state.global_step, float(logs["loss"]))

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            progress.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

    return Boundary()
