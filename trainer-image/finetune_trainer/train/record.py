"""The record of a training: one line per step, and the settings that were really used."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_api.report import StepValue, TrainingReport
from finetune_api.status import Effective, MemoryStatus
from finetune_trainer import methods
from finetune_trainer.evaluation.curve import Curve
from finetune_trainer.gpu.device import GPU
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.rows import Row
from finetune_trainer.run_folder.report_json import thinned
from finetune_trainer.train import tracking
from finetune_trainer.train.step_control import StepControl
from finetune_trainer.train.tracking import Tracker

METRICS = "metrics.jsonl"


def metrics(
    history: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    steps: Sequence[Sequence[int]],
    seconds: Mapping[int, float],
) -> list[dict[str, Any]]:
    """Return one line per optimizer step: its figures, its rows, and how long this attempt took for it.

    What is no number, such as the loss of a training that diverged, is None: JSON knows no other form of it.
    """
    return [
        {
            "step": entry["step"],
            "loss": _number(entry["loss"]),
            "gradNorm": _number(entry.get("grad_norm")),
            "learningRate": entry.get("learning_rate"),
            "rows": [rows[index].row_id for index in steps[entry["step"] - 1]],
            "supervisedTokens": sum(rows[index].supervised for index in steps[entry["step"] - 1]),
            "seconds": seconds.get(entry["step"]),
            **{name: _number(value) for name, value in methods.figures(entry).items()},
        }
        for entry in history
        if "loss" in entry
    ]


def losses(checkpoint: Path) -> list[float]:
    """Return the loss of every step up to a checkpoint, whose folder the trainer wrote."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return [float(entry["loss"]) for entry in state["log_history"] if "loss" in entry]


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def report(
    lines: Sequence[Mapping[str, Any]], curve: Curve, kept_step: int, ran: Effective, memory: MemoryStatus
) -> TrainingReport:
    """Return train's part of the run's report; `lines` are those of `metrics`."""
    return TrainingReport(
        steps=len(lines),
        loss=thinned([StepValue(step=line["step"], value=line["loss"]) for line in lines if line["loss"] is not None]),
        holdout_loss=[StepValue(step=point.step, value=point.loss) for point in curve.points],
        kept_step=kept_step,
        effective=ran,
        memory=memory,
    )


def tracked(tracker: Tracker, progress: StepControl) -> Any:
    """Return a TrainerCallback that hands the figures of every step to `tracker`."""
    from transformers import TrainerCallback

    class Tracked(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs:
                tracker.log(state.global_step, tracking.step_figures(logs, progress.tokens_per_second))

    return Tracked()


def effective(
    trainer: Any, loaded: LoadedModel, memory_settings: MemorySettings, device: GPU | None, processes: int
) -> Effective:
    """Return the settings that were really used, read back from the trainer and the model."""
    # A finished training that is resumed has no optimizer yet.
    made = trainer.optimizer or trainer.create_optimizer()
    optimizer = getattr(made, "optimizer", made)
    return Effective(
        processes=processes if processes > 1 else None,
        micro_batch_size=trainer.args.per_device_train_batch_size,
        gradient_accumulation=trainer.args.gradient_accumulation_steps,
        attention=str(getattr(loaded.model.config, "_attn_implementation", None)),
        precision="BF16" if trainer.args.bf16 else "FP16" if trainer.args.fp16 else "FP32",
        gradient_checkpointing=_checkpointing_read_back(loaded.model, memory_settings, device),
        optimizer=type(optimizer).__name__,
        gpu=device.name if device else "none (CPU)",
        driver=device.driver if device else None,
    )


def _checkpointing_read_back(model: Any, memory_settings: MemorySettings, device: GPU | None) -> str:
    if not getattr(model, "is_gradient_checkpointing", False):
        return "None"
    return "Offload" if memory_settings.gradient_checkpointing == "Offload" and device else "Standard"


def order_sha256(rows: Sequence[Row], steps: Sequence[Sequence[int]]) -> str:
    """Return the checksum of which rows each step learns."""
    ids = [[rows[index].row_id for index in step] for step in steps]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()
