"""The rounds of training: in each, the processes of all pods train with the same memory settings.

When it ends, every pod finds the same root cause and does the same next: another round, or the end.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_api.exit_codes import ExitCode
from finetune_api.progress import Activity
from finetune_api.result import StageResult
from finetune_trainer.errors import CRASHED, Preempted, StageError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.progress import watchdog
from finetune_trainer.run_folder.stage_results import failed
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopRequested
from finetune_trainer.train import launcher, process_group
from finetune_trainer.train.messages import STOPPED, Outcome, went_well
from finetune_trainer.train.pods import rendezvous
from finetune_trainer.train.pods.rendezvous import Rendezvous, RoundStart
from finetune_trainer.train.pods.root_cause import RoundState, find_root_cause, succeeded

# For the processes of this pod, once those of another one failed.
_OTHERS_SECONDS = 10.0
# The same, once the leader has written its result.
_END_SECONDS = 60.0
# For the other pods to publish how a round ended that went wrong.
_SETTLE_SECONDS = 30.0
_LOOK_SECONDS = 0.2
# How much later than the pod at fault the others end: as soon as one pod has failed, Kubernetes deletes those that have
# not, and their report of the cause with them.
_BEHIND_SECONDS = 3.0
log = logging.getLogger(__name__)

# Trains one round, with memory settings and with the model's files if they were fetched before.
TrainRound = Callable[[MemorySettings | None, Path | None], Outcome]


def run(context: Context, body: Callable[[TrainRound], StageResult]) -> StageResult:
    """Return what `body` returns, and publish it to the other pods; a StageError that it raises becomes its result.

    Raises:
        StopRequested: SIGTERM came while no process of this pod ran.
    """
    if context.node.alone:
        return _result(body, lambda memory_settings, weights: launcher.run(context, memory_settings, weights))
    meeting = Rendezvous(context.node, rendezvous.open_store)
    rounds = Rounds(context, meeting)
    final = failed("train", StageError(CRASHED, "it was interrupted"))
    try:
        final = _result(body, rounds.run)
    except StopRequested:
        final = failed("train", Preempted(STOPPED))
        raise
    finally:
        with context.stop.deferred():
            meeting.leave(final)
            time.sleep(_BEHIND_SECONDS if rounds.ended_by_other else 0.0)
    return final


def _result(body: Callable[[TrainRound], StageResult], train: TrainRound) -> StageResult:
    try:
        return body(train)
    except StageError as error:
        return failed("train", error)


class Rounds:
    """The rounds in one of several pods."""

    def __init__(self, context: Context, meeting: Rendezvous) -> None:
        self._context = context
        self._node = context.node
        self._meeting = meeting
        # The index of the current round, from 0.
        self._number = -1
        self.port = 0
        self._reports = 0
        # Another pod is at fault.
        self.ended_by_other = False

    def run(self, memory_settings: MemorySettings | None, weights: Path | None) -> Outcome:
        """Train one round; the leader's memory settings count in all pods.

        Raises:
            StopRequested: SIGTERM came while this pod waited for another one.
        """
        started = self._start(memory_settings)
        if isinstance(started, StageResult):
            return Outcome(result=started)
        self.port = started.port
        own = launcher.run(replace(self._context, reporter=self), started.memory_settings, weights, self)
        # A process that SIGTERM ends at once may be gone before the thread that watches it has passed that on. What
        # this pod saved counts, though it learns only now that another one was stopped.
        with self._context.stop.deferred():
            self._pass_stop_on()
        self._meeting.publish_round(outcome=own)
        index, decided = find_root_cause(self._settled())
        if decided is None:
            return Outcome(result=self._ended_by(index, None))
        if decided.shortage is not None:
            return decided.model_copy(update={"weights": own.weights})
        assert decided.result is not None
        stopped = decided.result.exit_code == ExitCode.PREEMPTED and self._context.stop.requested
        if index == self._node.index or stopped:
            return decided
        if went_well(decided):
            return Outcome(result=StageResult(stage="train", exit_code=ExitCode.OK, run_id=decided.result.run_id))
        return Outcome(result=self._ended_by(index, decided.result))

    def _start(self, memory_settings: MemorySettings | None) -> RoundStart | StageResult:
        """Return the next round when all pods are there, or why there is none."""
        self._number += 1
        meeting = self._meeting
        if self._node.leads:
            if (ended := self._wait(lambda: len(meeting.others) == self._node.count - 1, "the other pods")) is not None:
                return ended
            start = RoundStart(port=process_group.free_port(), memory_settings=memory_settings)
            meeting.publish(round_starts=(*meeting.own.round_starts, start), rounds=(*meeting.own.rounds, RoundState()))
            return start
        ended = self._wait(
            lambda: 0 in meeting.others and len(meeting.others[0].round_starts) > self._number, "the leading pod"
        )
        if ended is not None:
            return ended
        meeting.publish(rounds=(*meeting.own.rounds, RoundState()))
        return meeting.others[0].round_starts[self._number]

    def _wait(self, ready: Callable[[], bool], for_what: str) -> StageResult | None:
        """Return None when `ready`, or how this pod ends if another one has left or is lost.

        There is no time limit: how long pods may take to start is for the cluster to decide.
        """
        logged_at = float("-inf")
        while True:
            for index in self._indices:
                other = self._meeting.others.get(index)
                if other is not None and other.final is not None:
                    return self._ended_by(index, other.final)
                if self._meeting.lost(index):
                    return self._ended_by(index, None)
            if ready():
                return None
            if time.monotonic() - logged_at >= 60:
                logged_at = time.monotonic()
                log.info("node %d of %d waits for %s", self._node.index, self._node.count, for_what)
            time.sleep(_LOOK_SECONDS)

    @property
    def _indices(self) -> list[int]:
        """Of the other pods."""
        return [index for index in range(self._node.count) if index != self._node.index]

    def _states(self) -> list[RoundState | None]:
        """Return the current round's state in each pod; see `find_root_cause`."""
        states: list[RoundState | None] = []
        others = self._meeting.others
        for index in range(self._node.count):
            pod = self._meeting.own if index == self._node.index else others.get(index)
            state = pod.rounds[self._number] if pod and len(pod.rounds) > self._number else RoundState()
            if index == self._node.index or state.outcome is not None:
                states.append(state)
            elif pod is not None and pod.final is not None:
                states.append(state.model_copy(update={"outcome": Outcome(result=pod.final)}))
            else:
                states.append(None if self._meeting.lost(index) else state)
        return states

    def _settled(self) -> list[RoundState | None]:
        """Return the states when all pods have an outcome, the leader has its result, or the time to settle is over."""
        deadline: float | None = None
        while True:
            states = self._states()
            if succeeded(states[0]) or all(state is None or state.outcome is not None for state in states):
                return states
            if deadline is None and not all(state is not None and state.well for state in states):
                deadline = time.monotonic() + _SETTLE_SECONDS
            if deadline is not None and time.monotonic() >= deadline:
                return states
            time.sleep(_LOOK_SECONDS)

    def _ended_by(self, index: int, result: StageResult | None) -> StageResult:
        """Return how this pod ends because another one did; `result` None: that one was lost."""
        self.ended_by_other = True
        if result is None:
            other = "the leading pod" if index == 0 else f"node {index} of {self._node.count}"
            return failed("train", Preempted(f"training stopped because it lost contact with {other}"))
        error = Preempted(f"training stopped because node {index} of {self._node.count} ended first: {result.message}")
        return failed("train", error, result.checkpoint_step)

    def process_failed(self) -> None:
        """See launcher.Others."""
        self._meeting.publish_failure()

    def report(self, activity: Activity, **figures: Any) -> None:
        """See context.Reporter: pass it on, and let the other pods know that there is something to report."""
        self._reports += 1
        self._context.reporter.report(activity, **figures)

    @contextmanager
    def over(self, processes: Sequence[subprocess.Popen[bytes]], alive: Callable[[], None]) -> Iterator[None]:
        """See launcher.Others."""
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(processes, ended, alive), name="other-pods", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(
        self, processes: Sequence[subprocess.Popen[bytes]], ended: threading.Event, alive: Callable[[], None]
    ) -> None:
        deadline, reports = float("inf"), 0
        while not ended.wait(_LOOK_SECONDS):
            self._pass_stop_on()
            if self._reports != self._meeting.own.reports:
                self._meeting.publish(reports=self._reports)
            if reports != (reports := sum(other.reports for other in self._meeting.others.values())):
                alive()
            deadline = min(deadline, time.monotonic() + self._seconds_left())
            if time.monotonic() >= deadline:
                self._meeting.publish_round(killed=True)
                watchdog.end(processes, ended)
                return

    def _pass_stop_on(self) -> None:
        """SIGTERM to one pod is SIGTERM to all: its own processes may be waiting for one that is busy elsewhere."""
        stop, meeting = self._context.stop, self._meeting
        if stop.requested:
            if not meeting.own.stop:
                meeting.publish(stop=True)
        elif any(other.stop for other in meeting.others.values()):
            log.info("another pod received SIGTERM")
            stop.request()

    def _seconds_left(self) -> float:
        """Return how long this pod's processes may continue, given the states of the others."""
        states = self._states()
        if not self._node.leads and succeeded(states[0]):
            return _END_SECONDS
        well = all(state is not None and state.well for index, state in enumerate(states) if index != self._node.index)
        return float("inf") if well else _OTHERS_SECONDS
