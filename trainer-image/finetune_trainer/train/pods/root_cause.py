"""The root cause of how a round ended: every pod reads the same states and comes to the same conclusion."""

from collections.abc import Sequence
from enum import IntEnum

from finetune_api.base import Model
from finetune_api.exit_codes import REASONS, ExitCode
from finetune_trainer.errors import CRASHED
from finetune_trainer.train.messages import Outcome, went_well


class RoundState(Model):
    """How one round stands in one pod."""

    # Set as soon as a process of the pod fails: 1 for the first pod to which that happens, then 2.
    failed: int | None = None
    # Its processes did not end by themselves: they were killed because those of another pod had failed.
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


class _Precedence(IntEnum):
    """Which state is the cause, the first one first: when one pod fails, the others fail because of it."""

    SHORTAGE = 0
    # By one of the trainer's own codes.
    EXPLAINED = 1
    PREEMPTED = 2
    # A pod that is gone reports nothing, and breaks the connections of the others.
    LOST = 3
    # NCCL aborts a process that has lost its peers, so this may be a consequence.
    DIED = 4
    CRASHED = 5
    KILLED = 6
    SILENT = 7
    WELL = 8


def find_root_cause(states: Sequence[RoundState | None]) -> tuple[int, Outcome | None]:
    """Return the index of the pod that decides how the round ended, and its outcome; None: that pod was lost.

    `states` is by pod index; None is a pod that is gone and reported nothing. A success of the leader counts whatever
    the others report, since its result is complete; a shortage of memory anywhere leads to another round.
    """
    leader = states[0]
    if leader is not None and succeeded(leader):
        return 0, leader.outcome
    first = min(range(len(states)), key=lambda index: (_precedence(states[index]), _order(states[index]), index))
    state = states[first]
    return first, state.outcome if state is not None else None


def _precedence(state: RoundState | None) -> _Precedence:
    if state is None:
        return _Precedence.LOST
    outcome = state.outcome
    if outcome is None:
        return _Precedence.SILENT
    if outcome.shortage is not None:
        return _Precedence.SHORTAGE
    if went_well(outcome):
        return _Precedence.WELL
    assert outcome.result is not None
    code = outcome.result.exit_code
    if code == ExitCode.PREEMPTED:
        return _Precedence.PREEMPTED
    if code in REASONS:
        return _Precedence.EXPLAINED
    if state.killed:
        return _Precedence.KILLED
    return _Precedence.CRASHED if code == CRASHED else _Precedence.DIED


def _order(state: RoundState | None) -> float:
    if _precedence(state) is _Precedence.PREEMPTED:
        # All pods were asked to stop, and the leader knows what is saved.
        return 0
    return state.failed if state is not None and state.failed is not None else float("inf")
