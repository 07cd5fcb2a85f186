"""Which errors lead to more frugal settings, and which end training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_trainer.errors import GPUUnusableError, ModelError, SettingsError
from finetune_trainer.gpu.device import GPU
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.train.leader import Leader
from finetune_trainer.train.ranks.ranks import Ranks

L4 = GPU("NVIDIA L4", "570.86.10", (8, 9), 22000, 23034, has_bf16=True)
RAN_OUT = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def training(*, device: GPU | None = L4, loading: bool = True) -> Leader:
    context: Any = SimpleNamespace(plan=None, layout=SimpleNamespace(run=str))
    description: Any = SimpleNamespace(run_id="a" * 64)
    made = Leader(context, description, MemorySettings(1, "None"), Path("weights"), Ranks())
    made.device, made._loading = device, loading
    return made


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_the_shortage_has_what_was_free_and_what_was_asked_for() -> None:
    assert training().shortage(RAN_OUT) == Shortage("NVIDIA L4", 22000, 2048)


def test_a_model_that_could_not_be_loaded_for_want_of_memory_is_tried_again() -> None:
    assert training().shortage(caused(ModelError("not loaded"), ValueError("enough GPU RAM"))) is not None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("something else"),
        caused(SettingsError("the loss became nan"), RAN_OUT),
        caused(GPUUnusableError("full"), RAN_OUT),
    ],
)
def test_other_ends_are_final(error: Exception) -> None:
    assert training().shortage(error) is None


@pytest.mark.parametrize("state", [{"device": None}, {"loading": False}])
def test_without_a_gpu_or_before_loading_nothing_can_be_tried_again(state: dict[str, Any]) -> None:
    assert training(**state).shortage(RAN_OUT) is None
