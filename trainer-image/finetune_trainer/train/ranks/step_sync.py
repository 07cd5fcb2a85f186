"""The boundary of an optimizer step if several processes train together: the leader decides, and all do the same."""

from pathlib import Path

from finetune_trainer.methods.interface import Decision
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.train.ranks.ranks import Ranks
from finetune_trainer.train.step_control import StepControl


class LeaderSync:
    """Decides for all; SIGTERM to any process counts."""

    def __init__(self, progress: StepControl, ranks: Ranks, stop: StopFlag, seed: int) -> None:
        """`stop` is deferred."""
        self._progress = progress
        self._ranks = ranks
        self._stop = stop
        self._seed = seed

    def step_begins(self, done: int) -> None:
        """See Progress."""
        self._ranks.seed_step(self._seed, done)
        self._progress.step_begins(done)

    def step_ends(self, done: int) -> Decision:
        """See Progress."""
        if self._ranks.any_true(self._stop.requested):
            self._stop.request()
        return self._ranks.broadcast(self._progress.step_ends(done))

    def logged(self, done: int, loss: float) -> None:
        """See Progress."""
        self._progress.logged(done, loss)

    def saved(self, folder: Path, step: int) -> None:
        """See Progress."""
        self._progress.saved(folder, step)


class FollowerSync:
    """Does what the leader decides."""

    def __init__(self, ranks: Ranks, stop: StopFlag, seed: int) -> None:
        self._ranks = ranks
        self._stop = stop
        self._seed = seed

    def step_begins(self, done: int) -> None:
        """See Progress."""
        self._ranks.seed_step(self._seed, done)

    def step_ends(self, done: int) -> Decision:  # noqa: ARG002 - as the leader's
        """See Progress."""
        self._ranks.any_true(self._stop.requested)
        return self._ranks.broadcast()

    def logged(self, done: int, loss: float) -> None:
        """The leader has the same figure."""

    def saved(self, folder: Path, step: int) -> None:
        """The leader has what counts."""
