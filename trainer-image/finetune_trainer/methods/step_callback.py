"""Reports what the trainer library does to Progress."""

from pathlib import Path
from typing import Any

from finetune_trainer.methods.interface import Progress


def callback(progress: Progress) -> Any:
    """Return a TrainerCallback that reports each optimizer step to `progress` and does what it decides."""
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
