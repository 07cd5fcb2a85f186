"""What is decided between two optimizer steps."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.methods.interface import Decision
from finetune_trainer.runtime.sigterm import StopFlag, StopRequested
from finetune_trainer.train.divergence import DivergenceWatch
from finetune_trainer.train.holdout_watch import HoldoutWatch
from finetune_trainer.train.step_control import Cadence, StepControl


class Reports:
    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def report(self, activity: str, **values: Any) -> None:
        self.all.append({"activity": activity, **values})


class Upload:
    newest_step: int | None = None
    busy = False

    def start(self, folder: Path, step: int, best: int | None = None) -> None:
        self.newest_step = step

    def wait(self) -> None:
        self.busy = False


class Run:
    """Ten steps of two rows with 100 tokens each; every step takes four seconds."""

    def __init__(
        self,
        cadence: Cadence,
        done: int = 0,
        losses: dict[int, float] | None = None,
        *,
        keep_best: bool = True,
        patience: int | None = None,
    ) -> None:
        """`losses`: the hold-out loss after each step that is measured, which takes a minute."""
        self.now = 0.0
        self.losses = losses or {}
        self.holdout = HoldoutWatch(
            frozenset(self.losses),
            self.measure,
            lambda: True,
            Path("best"),
            keep_best=keep_best,
            patience=patience,
        )
        self.reports, self.upload, self.stop = Reports(), Upload(), StopFlag()
        self.upload.newest_step = done or None
        self.progress = StepControl(
            reporter=self.reports,
            stop=self.stop,
            upload=self.upload,  # type: ignore[arg-type]
            holdout=self.holdout,
            divergence=DivergenceWatch(None),
            cadence=cadence,
            step_tokens=[100] * 10,
            step_rows=[2] * 10,
            examples=5,
            compiles=True,
            measuring_seconds=50.0,
            judging_seconds=100.0,
            clock=lambda: self.now,
        )
        self.done = done

    def measure(self, step: int) -> float:
        self.now += 60
        return self.losses[step]

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


def test_the_count_continues_where_it_was_resumed() -> None:
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


def test_a_checkpoint_that_is_on_its_way_is_whole_before_the_next_is_written() -> None:
    run = Run(Cadence(86400, None), losses={1: 1.0})
    run.upload.busy = True
    assert (run.step().save, run.upload.busy) == (True, False)


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
    assert run.reports.all[-1]["eta_seconds"] == 24 + 100
    assert run.reports.all[-1]["epoch"] == pytest.approx(8 / 5)


def test_the_time_left_is_not_known_before_a_step_was_measured() -> None:
    run = Run(Cadence(86400, None))
    run.step()
    assert run.reports.all[-1]["eta_seconds"] is None


def test_the_time_left_has_the_measurements_that_are_still_to_come_at_the_pace_of_the_last_one() -> None:
    run = Run(Cadence(86400, None), losses={3: 1.0, 6: 1.0, 10: 1.0})
    for _ in range(2):
        run.step()
    assert run.reports.all[-1]["eta_seconds"] == 8 * 4 + 3 * 50 + 100
    run.step()
    assert run.reports.all[-1]["eta_seconds"] == 7 * 4 + 2 * 60 + 100


def test_a_stop_is_reported_with_its_step_before_the_checkpoint_is_written() -> None:
    run = Run(Cadence(86400, None))
    with run.stop.deferred():
        run.progress.step_begins(0)
        run.stop.request()
        run.progress.step_ends(1)
    assert (run.reports.all[-1]["activity"], run.reports.all[-1]["step"]) == ("Saving", 1)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_training_that_diverges_ends_with_a_checkpoint_and_measures_nothing_more(loss: float) -> None:
    run = Run(Cadence(86400, None), losses={2: 1.0})
    assert run.step(loss=loss) == Decision(save=False, stop=False)
    assert run.step(loss=loss) == Decision(save=True, stop=True)
    assert run.holdout.curve.points == []


def test_the_best_step_so_far_is_saved() -> None:
    assert saves(Run(Cadence(86400, None), losses={2: 3.0, 4: 2.0, 6: 2.5, 8: 1.0}), 9) == [2, 4, 8]


def test_if_the_last_step_is_kept_the_best_one_needs_no_checkpoint() -> None:
    assert saves(Run(Cadence(86400, None), losses={2: 3.0, 4: 2.0}, keep_best=False), 9) == []


def test_looking_at_the_hold_out_rows_is_no_part_of_a_steps_time() -> None:
    run = Run(Cadence(86400, None), losses={2: 3.0})
    run.step()
    run.step()
    assert run.progress.step_seconds == {1: 4.0, 2: 4.0}


def test_without_a_better_measurement_training_ends_early_with_a_checkpoint() -> None:
    run = Run(Cadence(86400, None), losses={1: 1.0, 2: 1.5, 3: 1.4}, patience=2)
    assert [run.step() for _ in range(3)] == [
        Decision(save=True, stop=False),
        Decision(save=False, stop=False),
        Decision(save=True, stop=True),
    ]


def test_a_process_that_is_asked_to_stop_while_measuring_saves_and_leaves_it_to_the_next_attempt() -> None:
    run = Run(Cadence(86400, None), losses={1: 1.0})

    def measure(step: int) -> float:
        run.stop.request()
        raise StopRequested

    run.holdout._measure = measure
    with run.stop.deferred():
        assert run.step() == Decision(save=True, stop=True)
    assert run.holdout.due(1)


def test_a_process_that_is_asked_to_stop_does_not_measure_first() -> None:
    run = Run(Cadence(86400, None), losses={1: 1.0})
    with run.stop.deferred():
        run.stop.request()
        run.step()
    assert run.holdout.due(1)
