"""Loads the pinned weights from a local folder and attaches a LoRA adapter."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer import methods
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.gpu.device import GPU
from finetune_trainer.gpu.memory_settings import Checkpointing, MemorySettings
from finetune_trainer.gpu.precision import dtype, precision
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.model import adapter

# Unsloth's own name for recomputation with activations kept in host memory.
_CHECKPOINTING: dict[Checkpointing, bool | str] = {"Offload": "unsloth", "Standard": True, "None": False}


def checkpointing(requested: Checkpointing) -> bool | str:
    """Return Unsloth's `use_gradient_checkpointing`."""
    return _CHECKPOINTING[requested]


def load(
    plan: Plan, weights: Path, gpu: GPU | None, memory_settings: MemorySettings, start: Path | None = None
) -> LoadedModel:
    """Load the model and attach an adapter: a fresh one (B = 0, so it answers as the base does), or that of `start`.

    Raises:
        ModelError: the weights cannot be loaded, or the model has none of the target modules; or see
            `adapter.start_from`.
        SettingsError: see `precision`; or a target module cannot have an adapter.
    """
    _check_targets(plan.training.lora.target_modules)
    # Tokenized rows need no worker processes, each of which takes 680 MB.
    os.environ["UNSLOTH_DATASET_NUM_PROC"] = "0"
    # Unsloth compiles each layer twice, with gradients for the policy and without for the reference, and the two round
    # BF16 at different places: on an H100 an untrained policy differed from its reference by 0.36 nats a row, and DPO
    # started at 0.700 instead of log 2. Without compilation the two are equal to the last bit.
    if methods.of(plan.training.method).compared_with_reference:
        os.environ["UNSLOTH_BLOCK_COMPILE"] = "0"
    # Unsloth first: it patches the libraries that are imported after it.
    from unsloth import FastLanguageModel

    training = plan.training
    chosen = precision(training.precision, gpu)
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(
            model_name=str(weights),
            max_seq_length=plan.model.max_sequence_length,
            dtype=dtype(chosen),
            load_in_4bit=plan.model.quantization == "NF4",
            local_files_only=True,
            use_exact_model_name=True,
            trust_remote_code=False,
            use_gradient_checkpointing=checkpointing(memory_settings.gradient_checkpointing),
            random_state=training.seed,
        )
        model = FastLanguageModel.get_peft_model(
            model,
            r=training.lora.rank,
            lora_alpha=training.lora.alpha,
            lora_dropout=training.lora.dropout,
            target_modules=training.lora.target_modules,
            use_rslora=training.lora.use_rslora,
            bias="none",
            use_gradient_checkpointing=checkpointing(memory_settings.gradient_checkpointing),
            random_state=training.seed,
            max_seq_length=plan.model.max_sequence_length,
            modules_to_save=None,
            init_lora_weights=True,
            loftq_config=None,
        )
    except (OSError, ValueError, NotImplementedError, KeyError) as error:
        raise ModelError(
            f"the model could not be loaded with an adapter on {', '.join(training.lora.target_modules)}: "
            f"{next(iter(str(error).splitlines()), '')[:300]}; check spec.model and spec.training.lora.targetModules"
        ) from error
    if start is not None:
        adapter.start_from(model, start)
    return LoadedModel(model, tokenizer, chosen)


def _check_targets(modules: Sequence[str]) -> None:
    """Refuse modules that would be trained in full instead of with LoRA, and could not be merged."""
    for module in ("embed_tokens", "lm_head"):
        if module in modules:
            raise SettingsError(
                f"spec.training.lora.targetModules has {module}, which cannot have an adapter; leave it out"
            )


def for_training(model: Any) -> None:
    """Switch to the forward pass of training."""
    from unsloth import FastLanguageModel

    FastLanguageModel.for_training(model)


def for_inference(model: Any) -> None:
    """Switch to the forward pass of generation."""
    from unsloth import FastLanguageModel

    FastLanguageModel.for_inference(model)
