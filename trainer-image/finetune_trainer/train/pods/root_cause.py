"""How a round of training ended, of what its pods tell: each pod hears the same and comes to the same conclusion."""

from collections.abc import Sequence
from enum import IntEnum

from finetune_api.base import Model
from finetune_api.exit_codes import REASONS, ExitCode
from finetune_trainer.errors import CRASHED
from finetune_trainer.train.messages import Outcome, went_well


class RoundState(Model):
    """What one pod tells of one round."""

    # Set as soon as a process of the pod fails: 1 for the first pod to which that happens, then 2.
    failed: int | None = None
    # Its processes did not end by themselves, and were killed since those of another pod had failed.
    killed: bool = False
    # Set when all processes of the pod have ended.
    outcome: Outcome | None = None

    @property
    def well(self) -> bool:
        """Whether nothing is known to have gone wrong."""
        return self.failed is None and (self.outcome is None or went_well(self.outcome))


def succeeded(leader: RoundState | None) -> bool:
    """Return whether the leader has its result: nothing that comes later matters."""
    outcome = leader.outcome if leader is not None else None
    return outcome is not None and outcome.result is not None and went_well(outcome)


class _Weight(IntEnum):
    """Whose word counts: when one pod fails, the others fail for want of it."""

    SHORTAGE = 0
    # By one of the trainer's own codes.
    EXPLAINED = 1
    PREEMPTED = 2
    # A pod that is gone says nothing, and breaks the connections of the others.
    LOST = 3
    # NCCL aborts a process that has lost its peers, so that this may be a consequence.
    DIED = 4
    CRASHED = 5
    KILLED = 6
    SILENT = 7
    WELL = 8


def find_root_cause(told: Sequence[RoundState | None]) -> tuple[int, Outcome | None]:
    """Return which pod decides how the round ended, and how; without an outcome that pod was lost.

    `told` is by the pods' indices; None is a pod that is gone without a word. A success of the leader counts whatever
    the others say, since its result is complete; a shortage of memory anywhere means another round.
    """
    leader = told[0]
    if leader is not None and succeeded(leader):
        return 0, leader.outcome
    first = min(range(len(told)), key=lambda index: (_weight(told[index]), _order(told[index]), index))
    word = told[first]
    return first, word.outcome if word is not None else None


def _weight(told: RoundState | None) -> _Weight:
    if told is None:
        return _Weight.LOST
    outcome = told.outcome
    if outcome is None:
        return _Weight.SILENT
    if outcome.shortage is not None:
        return _Weight.SHORTAGE
    if went_well(outcome):
        return _Weight.WELL
    assert outcome.result is not None
    code = outcome.result.exit_code
    if code == ExitCode.PREEMPTED:
        return _Weight.PREEMPTED
    if code in REASONS:
        return _Weight.EXPLAINED
    if told.killed:
        return _Weight.KILLED
    return _Weight.CRASHED if code == CRASHED else _Weight.DIED


def _order(told: RoundState | None) -> float:
    if _weight(told) is _Weight.PREEMPTED:
        # All were told to stop, and the leader knows what is saved.
        return 0
    return told.failed if told is not None and told.failed is not None else float("inf")
