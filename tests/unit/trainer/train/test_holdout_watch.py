"""The best adapter is kept over kills; what is lost is not counted on."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.model import adapter
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.train.checkpoints import Checkpoints
from finetune_trainer.train.holdout_watch import HoldoutWatch


class Run:
    """Attempts at one run; the adapter of step n is the bytes `n`."""

    def __init__(self, root: Path, losses: dict[int, float], *, keep_best: bool = True) -> None:
        self.root, self.losses, self.keep_best = root, losses, keep_best
        self.checkpoints = Checkpoints(FileStore(root / "store"), "checkpoints", "run", "order")
        self.attempts = 0
        # False: the learning rate is still 0.
        self.changed = True

    def attempt(self) -> HoldoutWatch:
        self.attempts += 1
        return HoldoutWatch(
            frozenset(self.losses),
            self.losses.__getitem__,
            lambda: self.changed,
            self.root / f"best-{self.attempts}",
            keep_best=self.keep_best,
            patience=None,
        )

    def step(self, watch: HoldoutWatch, step: int) -> None:
        if watch.due(step):
            watch.measure(step)
        folder = self.root / f"{self.attempts}-{step}"
        folder.mkdir()
        (folder / adapter.WEIGHTS).write_text(str(step))
        watch.saved(folder, step)
        self.checkpoints.upload(folder, step, watch.protected)

    def resumed(self) -> HoldoutWatch:
        watch = self.attempt()
        marker = self.checkpoints.newest()
        assert marker is not None
        folder = self.root / f"resume-{self.attempts}"
        assert self.checkpoints.download(marker, folder)
        watch.resume(marker.step, folder, self.checkpoints)
        return watch


def kept(watch: HoldoutWatch, last_step: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str | None]:
    """Return the step that is kept, and the adapter that was put into the model for that."""
    loaded: list[str] = []

    def start_from(model: Any, folder: Path) -> None:
        loaded.append((folder / adapter.WEIGHTS).read_text())

    monkeypatch.setattr(adapter, "start_from", start_from)
    return watch.restore(None, last_step), (loaded[0] if loaded else None)


def test_the_best_steps_adapter_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0})
    watch = run.attempt()
    for step in (1, 2, 3):
        run.step(watch, step)
    assert kept(watch, 3, monkeypatch) == (2, "2")


@pytest.mark.parametrize(("losses", "keep_best"), [({1: 3.0, 2: 1.0}, True), ({1: 1.0, 2: 3.0}, False), ({}, True)])
def test_the_last_step_stays_where_it_is_best_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: dict[int, float], keep_best: bool
) -> None:
    run = Run(tmp_path, losses, keep_best=keep_best)
    watch = run.attempt()
    for step in (1, 2):
        run.step(watch, step)
    assert kept(watch, 2, monkeypatch) == (2, None)


@pytest.mark.parametrize("killed_after", [2, 3, 5])
def test_the_best_adapter_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int) -> None:
    run = Run(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 2.6, 6: 2.7})
    watch = run.attempt()
    for step in range(1, killed_after + 1):
        run.step(watch, step)
    watch = run.resumed()
    for step in range(killed_after + 1, 7):
        run.step(watch, step)
    assert kept(watch, 6, monkeypatch) == (2, "2")
    assert [point.step for point in watch.curve.points] == [1, 2, 3, 4, 5, 6]


def test_a_best_adapter_that_is_lost_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, {1: 1.0, 2: 3.0, 3: 2.0})
    watch = run.attempt()
    for step in (1, 2, 3):
        run.step(watch, step)
    run.checkpoints.discard(1)
    assert kept(run.resumed(), 3, monkeypatch) == (3, None)


def test_a_step_that_was_left_out_is_still_due_after_a_resume(tmp_path: Path) -> None:
    run = Run(tmp_path, {1: 3.0, 2: 1.0})
    watch = run.attempt()
    run.step(watch, 1)
    assert (run.resumed().due(1), run.resumed().due(2)) == (False, True)


def test_an_adapter_that_nothing_has_changed_yet_is_not_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0})
    watch = run.attempt()
    run.changed = False
    run.step(watch, 1)
    run.changed = True
    for step in (2, 3):
        run.step(watch, step)
    assert kept(watch, 3, monkeypatch) == (2, "2")


def test_a_loss_that_is_no_number_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, {1: 2.0, 2: float("nan")})
    watch = run.attempt()
    for step in (1, 2):
        run.step(watch, step)
    assert kept(run.resumed(), 2, monkeypatch) == (1, "1")


def test_a_checkpoint_of_an_older_trainer_has_no_curve(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    watch = run.attempt()
    watch.resume(4, tmp_path, run.checkpoints)
    assert watch.curve.points == []
