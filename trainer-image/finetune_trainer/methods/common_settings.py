"""The settings that the trainers of all methods share. Unsloth's defaults differ from TRL's: none is left to either."""

import math
from pathlib import Path
from typing import Any

from finetune_api import shares
from finetune_api.plan import Plan, TrainingPlan
from finetune_api.training_spec import WARMUP_STEPS
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision

# A larger share of steps with a rising learning rate leaves little real training.
LONGEST_WARMUP = 0.2
_OPTIMIZERS = {"AdamW8bit": "adamw_8bit", "AdamW": "adamw_torch_fused"}
# transformers' name for "constant after warmup".
_SCHEDULES = {"Linear": "linear", "Cosine": "cosine", "Constant": "constant_with_warmup"}


def warmup_steps(training: TrainingPlan, total_steps: int) -> int:
    """Return the optimizer steps in which the learning rate rises; a ratio is rounded up.

    By default these are few enough for the shortest training.
    """
    if training.warmup_ratio is not None:
        return math.ceil(training.warmup_ratio * total_steps)
    if training.warmup_steps is not None:
        return training.warmup_steps
    return min(WARMUP_STEPS, int(LONGEST_WARMUP * total_steps))


def common(
    plan: Plan,
    precision: Precision,
    total_steps: int,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the arguments that SFTConfig, DPOConfig, ORPOConfig and KTOConfig all take."""
    training = plan.training
    process_batch_size = shares.process_batch_size(training.batch_size, processes)
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": memory_settings.micro_batch_size,
        "gradient_accumulation_steps": process_batch_size // memory_settings.micro_batch_size,
        "max_steps": total_steps,
        "num_train_epochs": 1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": _SCHEDULES[training.learning_rate_schedule],
        "warmup_steps": warmup_steps(training, total_steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": _OPTIMIZERS[training.optimizer],
        "adam_beta1": 0.9,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": 1e-8,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": training.neftune_noise_alpha,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": precision == "fp32",
        "seed": training.seed,
        "data_seed": training.seed,
        "gradient_checkpointing": memory_settings.gradient_checkpointing != "None",
        "max_length": plan.model.max_sequence_length,
        "train_sampling_strategy": "sequential",
        "dataset_num_proc": None,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
        "auto_find_batch_size": False,
        "torch_empty_cache_steps": None,
        "torch_compile": False,
        "use_liger_kernel": False,
        "ignore_data_skip": False,
        # Matters with several processes only: every step uses all of LoRA's matrices.
        "ddp_find_unused_parameters": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        # Otherwise a loss that is not a number would be replaced by the mean of the others.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "eval_strategy": "no",
        # Checkpoints are asked for step by step: see `train.step_control`.
        "save_strategy": "no",
        "save_total_limit": 1,
        "save_only_model": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
    }
