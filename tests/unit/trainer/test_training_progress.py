"""What is decided between two optimizer steps."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.errors import SettingsError
from finetune_trainer.stop import StopFlag
from finetune_trainer.training_progress import Cadence, Decision, TrainingProgress


class Reports:
    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def report(self, activity: str, **values: Any) -> None:
        self.all.append({"activity": activity, **values})


class Upload:
    newest_step: int | None = None
    busy = False

    def start(self, folder: Path, step: int) -> None:
        self.newest_step = step


class Run:
    """Ten steps of two rows with 100 tokens each; every step takes four seconds."""

    def __init__(self, cadence: Cadence, done: int = 0) -> None:
        self.now = 0.0
        self.reports, self.upload, self.stop = Reports(), Upload(), StopFlag()
        self.upload.newest_step = done or None
        self.progress = TrainingProgress(
            reporter=self.reports,
            stop=self.stop,
            upload=self.upload,  # type: ignore[arg-type]
            cadence=cadence,
            step_tokens=[100] * 10,
            step_rows=[2] * 10,
            examples=5,
            compiles=True,
            clock=lambda: self.now,
        )
        self.done = done

    def step(self, seconds: float = 4.0, loss: float = 1.0) -> Decision:
        self.progress.step_begins(self.done)
        self.now += seconds
        self.done += 1
        decision = self.progress.step_ends(self.done)
        self.progress.logged(self.done, loss)
        return decision


def saves(run: Run, steps: int) -> list[int]:
    return [run.done for _ in range(steps) if run.step().save]


def test_checkpoints_by_steps() -> None:
    assert saves(Run(Cadence(None, 3)), 9) == [3, 6, 9]


def test_checkpoints_by_time() -> None:
    assert saves(Run(Cadence(10, None)), 9) == [3, 6, 9]


def test_the_count_goes_on_where_it_was_resumed() -> None:
    assert saves(Run(Cadence(None, 3), done=2), 7) == [5, 8]


def test_the_last_step_is_always_saved() -> None:
    assert saves(Run(Cadence(86400, None)), 10) == [10]


def test_training_does_not_wait_for_a_slow_upload() -> None:
    run = Run(Cadence(None, 1))
    run.upload.busy = True
    assert saves(run, 9) == []


def test_a_stop_saves_even_while_uploading() -> None:
    run = Run(Cadence(86400, None))
    run.upload.busy = True
    with run.stop.deferred():
        run.stop.request()
        assert run.step() == Decision(save=True, stop=True)


def test_the_first_step_compiles_and_its_speed_does_not_count() -> None:
    run = Run(Cadence(86400, None))
    run.step(seconds=60)
    run.step()
    assert run.reports.all[0]["activity"] == "Compiling"
    assert run.progress.tokens_per_second == 25


def test_the_time_left_follows_the_last_steps() -> None:
    run = Run(Cadence(86400, None))
    for _ in range(4):
        run.step()
    assert run.reports.all[-1]["eta_seconds"] == 24
    assert run.reports.all[-1]["epoch"] == pytest.approx(8 / 5)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_the_settings_to_change(loss: float) -> None:
    with pytest.raises(SettingsError, match=r"at step 1; lower spec\.training\.learningRate"):
        Run(Cadence(86400, None)).step(loss=loss)
