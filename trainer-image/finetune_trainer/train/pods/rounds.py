"""The rounds of training: in each the processes of all pods train at one rung, and all pods conclude how it ended."""

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
# For the other pods to tell how a round ended that went wrong.
_TELL_SECONDS = 30.0
_LOOK_SECONDS = 0.2
# For which a pod stays behind the one at fault: as soon as one pod has failed, Kubernetes deletes those that have not,
# and with them what they say of the cause.
_BEHIND_SECONDS = 3.0
log = logging.getLogger(__name__)

# Trains one round, at a rung and with the model's files if they were fetched before.
Train = Callable[[MemorySettings | None, Path | None], Outcome]


class _EndedFirstError(Preempted):
    """Another pod is at fault."""


@contextmanager
def opened(context: Context) -> Iterator[Train]:
    """Yield what trains one round; raises what is raised inside."""
    if context.node.alone:
        yield lambda memory_settings, weights: launcher.run(context, memory_settings, weights)
        return
    met = Rendezvous(context.node, rendezvous.open_store)
    left, behind = failed("train", StageError(CRASHED, "it was interrupted")), 0.0
    try:
        yield Rounds(context, met).run
    except StageError as error:
        left = failed("train", error)
        behind = _BEHIND_SECONDS if isinstance(error, _EndedFirstError) else 0.0
        raise
    except StopRequested:
        left = failed("train", Preempted(STOPPED))
        raise
    else:
        left = StageResult(stage="train", exit_code=ExitCode.OK)
    finally:
        with context.stop.deferred():
            met.leave(left)
            time.sleep(behind)


class Rounds:
    """Of one pod of several."""

    def __init__(self, context: Context, met: Rendezvous) -> None:
        self._context = context
        self._node = context.node
        self._meeting = met
        # Which round it is, from 0.
        self._number = -1
        self.port = 0
        self._reports = 0

    def run(self, memory_settings: MemorySettings | None, weights: Path | None) -> Outcome:
        """Train one round; in a pod that does not lead the leader's rung counts.

        Raises:
            Preempted: another pod ended first, or contact to it was lost.
            StopRequested: SIGTERM came while this pod waited for another one.
        """
        begun = self._begin(memory_settings)
        self.port = begun.port
        own = launcher.run(replace(self._context, reporter=self), begun.memory_settings, weights, self)
        self._meeting.tell(outcome=own)
        index, decided = find_root_cause(self._settled())
        if decided is None:
            raise self._ended_first(index, None)
        if decided.shortage is not None:
            return decided.model_copy(update={"weights": own.weights})
        assert decided.result is not None
        stopped = decided.result.exit_code == ExitCode.PREEMPTED and self._context.stop.requested
        if index == self._node.index or stopped:
            return decided
        if went_well(decided):
            return Outcome(result=StageResult(stage="train", exit_code=ExitCode.OK, run_id=decided.result.run_id))
        raise self._ended_first(index, decided.result)

    def _begin(self, memory_settings: MemorySettings | None) -> RoundStart:
        """Return the next round when all pods are there."""
        self._number += 1
        met = self._meeting
        if self._node.leads:
            self._wait(lambda: len(met.others) == self._node.count - 1, "the other pods")
            beginning = RoundStart(port=process_group.free_port(), memory_settings=memory_settings)
            met.say(round_starts=(*met.own.round_starts, beginning), rounds=(*met.own.rounds, RoundState()))
            return beginning
        self._wait(lambda: 0 in met.others and len(met.others[0].round_starts) > self._number, "the pod that leads")
        met.say(rounds=(*met.own.rounds, RoundState()))
        return met.others[0].round_starts[self._number]

    def _wait(self, ready: Callable[[], bool], for_what: str) -> None:
        """Wait without limit: how long pods may take to start is the cluster's affair."""
        told_at = float("-inf")
        while True:
            for index in self._indices:
                said = self._meeting.others.get(index)
                if said is not None and said.left is not None:
                    raise self._ended_first(index, said.left)
                if self._meeting.lost(index):
                    raise self._ended_first(index, None)
            if ready():
                return
            if time.monotonic() - told_at >= 60:
                told_at = time.monotonic()
                log.info("node %d of %d waits for %s", self._node.index, self._node.count, for_what)
            time.sleep(_LOOK_SECONDS)

    @property
    def _indices(self) -> list[int]:
        """Of the other pods."""
        return [index for index in range(self._node.count) if index != self._node.index]

    def _told(self) -> list[RoundState | None]:
        """Return what each pod tells of this round; see `conclude`."""
        told: list[RoundState | None] = []
        others = self._meeting.others
        for index in range(self._node.count):
            said = self._meeting.own if index == self._node.index else others.get(index)
            of_round = said.rounds[self._number] if said and len(said.rounds) > self._number else RoundState()
            if index == self._node.index or of_round.outcome is not None:
                told.append(of_round)
            elif said is not None and said.left is not None:
                told.append(of_round.model_copy(update={"outcome": Outcome(result=said.left)}))
            else:
                told.append(None if self._meeting.lost(index) else of_round)
        return told

    def _settled(self) -> list[RoundState | None]:
        """Return what the pods tell when all of them have, or the leader has its result, or one waits in vain."""
        deadline: float | None = None
        while True:
            told = self._told()
            if succeeded(told[0]) or all(one is None or one.outcome is not None for one in told):
                return told
            if deadline is None and not all(one is not None and one.well for one in told):
                deadline = time.monotonic() + _TELL_SECONDS
            if deadline is not None and time.monotonic() >= deadline:
                return told
            time.sleep(_LOOK_SECONDS)

    def _ended_first(self, index: int, result: StageResult | None) -> _EndedFirstError:
        if result is None:
            other = "the pod that leads" if index == 0 else f"node {index} of {self._node.count}"
            return _EndedFirstError(f"training stopped because it lost contact to {other}")
        error = _EndedFirstError(
            f"training stopped because node {index} of {self._node.count} ended first: {result.message}"
        )
        error.checkpoint_step = result.checkpoint_step
        return error

    def failed(self) -> None:
        """See launcher.Others."""
        self._meeting.failed()

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
        deadline, heard = float("inf"), 0
        while not ended.wait(_LOOK_SECONDS):
            self._pass_stop_on()
            if self._reports != self._meeting.own.reports:
                self._meeting.say(reports=self._reports)
            if heard != (heard := sum(said.reports for said in self._meeting.others.values())):
                alive()
            deadline = min(deadline, time.monotonic() + self._seconds_left())
            if time.monotonic() >= deadline:
                self._meeting.tell(killed=True)
                watchdog.end(processes, ended)
                return

    def _pass_stop_on(self) -> None:
        """SIGTERM to one pod is SIGTERM to all: its own processes may be waiting for one that is busy elsewhere."""
        stop, met = self._context.stop, self._meeting
        if stop.requested:
            if not met.own.stop:
                met.say(stop=True)
        elif any(said.stop for said in met.others.values()):
            log.info("another pod was told to stop")
            stop.request()

    def _seconds_left(self) -> float:
        """Return how long this pod's processes may go on, by what the others tell."""
        told = self._told()
        if not self._node.leads and succeeded(told[0]):
            return _END_SECONDS
        well = all(one is not None and one.well for index, one in enumerate(told) if index != self._node.index)
        return float("inf") if well else _OTHERS_SECONDS
