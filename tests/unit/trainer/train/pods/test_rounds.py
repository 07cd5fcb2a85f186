"""Several pods that train together: rounds, stops, deaths and lost pods, with training and the store replaced."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api.result import StageResult
from finetune_trainer.progress import watchdog
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.node import Node
from finetune_trainer.runtime.sigterm import StopFlag, StopRequested
from finetune_trainer.train import stage as train_stage
from finetune_trainer.train.messages import STOPPED, Outcome
from finetune_trainer.train.pods import rendezvous, rounds
from finetune_trainer.train.pods.rendezvous import PodState, Rendezvous
from finetune_trainer.train.pods.rounds import Rounds, TrainRound
from tests.unit.trainer.train.test_stage import PATIENCE_SECONDS, RUN, Stage, running

OVER = StageResult(stage="train", exit_code=0)


class Clock:
    """Stands in for `time` where the silence of pods is counted.

    It passes when a test says so: no pod is lost because a machine is busy.
    """

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Table:
    """The store, which any pod may be cut off from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.lock = threading.Lock()
        self.cut_off: set[int] = set()

    def end(self, node: int) -> "End":
        return End(self, node)


class End:
    """One pod's connection to it."""

    def __init__(self, table: Table, node: int) -> None:
        self.table = table
        self.node = node

    def set(self, key: str, value: str) -> None:
        if self.node in self.table.cut_off:
            raise RuntimeError("Broken pipe")
        self.table.values[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.table.values for key in keys)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.table.values[key] for key in keys]

    def add(self, key: str, amount: int) -> int:
        with self.table.lock:
            self.table.values[key] = self.table.values.get(key, 0) + amount
            return int(self.table.values[key])


class Pods:
    """One job that was prepared, in several pods."""

    def __init__(self, stage: Stage, count: int) -> None:
        self.stage = stage
        self.table = Table()
        self.contexts = [self._context(index, count) for index in range(count)]
        self.pool = ThreadPoolExecutor(count)

    def _context(self, index: int, count: int) -> Context:
        context = self.stage.context()
        scratch = self.stage.root / f"pod-{index}"
        scratch.mkdir()
        return Context(
            context.plan,
            context.layout,
            context.store,
            context.reporter,
            scratch,
            0,
            StopFlag(),
            node=Node(index, count, "leader"),
        )

    def start(self, index: int) -> "Future[StageResult]":
        return self.pool.submit(train_stage.run, self.contexts[index])

    def stop(self, index: int) -> None:
        """As SIGTERM does while its processes run."""
        self.contexts[index].stop.request()

    def run(self, **script: Any) -> list[StageResult | BaseException]:
        """Return how each pod ended."""
        self.tell(**script)
        futures = [self.start(index) for index in range(len(self.contexts))]
        return [ended(future) for future in futures]

    def tell(self, **script: Any) -> None:
        self.stage.monkeypatch.setenv("FAKE_TRAINING", json.dumps(script))


def ended(future: "Future[StageResult]") -> StageResult | BaseException:
    return future.exception(2 * PATIENCE_SECONDS) or future.result()


def failure(found: StageResult | BaseException) -> tuple[int, str]:
    assert isinstance(found, StageResult), found
    assert found.exit_code != 0
    return found.exit_code, found.message


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rendezvous, "time", found)
    return found


def continues_until(clock: Clock, condition: Callable[[], Any]) -> None:
    """Let time pass, a second at each look."""

    def looked() -> Any:
        clock.now += 1
        return condition()

    until(looked)


@pytest.fixture
def pods(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Pods:
    stage = Stage(tmp_path, monkeypatch)
    stage.prepare()
    made = Pods(stage, 2)
    monkeypatch.setattr(rendezvous, "open_store", lambda node, closing: made.table.end(node.index))
    monkeypatch.setattr(rendezvous, "_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(rounds, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(rounds, "_BEHIND_SECONDS", 0.0)
    # Where all end by themselves, a busy machine may take long.
    monkeypatch.setattr(rounds, "_OTHERS_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(rounds, "_SETTLE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(watchdog, "_DUMP_SECONDS", 0.2)
    return made


def test_all_end_well_when_the_leader_has_its_result(pods: Pods) -> None:
    first, second = pods.run(fits=[8, "None"])
    assert isinstance(first, StageResult)
    assert isinstance(second, StageResult)
    assert (first.exit_code, second.exit_code, second.run_id, second.artifacts) == (0, 0, RUN, [])
    assert len(pods.stage.started) == 2


def test_memory_that_runs_out_in_one_pod_is_tried_again_by_all(pods: Pods) -> None:
    found = pods.run(end="crash", others={"fits": None})
    assert [failure(one)[0] for one in found] == [79, 79]
    assert [micro for micro, _ in pods.stage.settings[::2]] == [8, 8, 4, 2, 2, 1]
    assert pods.stage.settings[::2] == pods.stage.settings[1::2]


def test_each_pod_keeps_its_own_files_between_rounds(pods: Pods) -> None:
    pods.run(end="crash", others={"fits": None})
    fetched = [one["weights"] for one in pods.stage.started]
    assert fetched.count("model-files") == 5
    assert fetched.count(None) == 7


def test_a_retry_starts_with_the_memory_settings_that_the_leader_knows(pods: Pods) -> None:
    pods.run(fits=None)
    pods.stage.attempts += 1
    again = Pods.__new__(Pods)
    again.__dict__ = pods.__dict__ | {"table": Table()}
    pods.stage.monkeypatch.setattr(rendezvous, "open_store", lambda node, closing: again.table.end(node.index))
    again.run(fits=[1, "Offload"])
    assert pods.stage.settings[-2:] == [[1, "Offload"], [1, "Offload"]]


@pytest.mark.parametrize(
    ("leader", "other", "codes"),
    [
        ("wait", "SIGKILL", (75, 137)),
        ("crash", "SIGSEGV", (75, 139)),
        ("SIGKILL", "wait", (137, 75)),
        ("exit", "crash", (3, 75)),
        ("crash", "wait", (1, 75)),
    ],
)
def test_the_pod_at_fault_ends_with_its_own_code(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, leader: str, other: str, codes: tuple[int, int]
) -> None:
    if "wait" in (leader, other):
        monkeypatch.setattr(rounds, "_OTHERS_SECONDS", 0.2)
    found = [failure(one) for one in pods.run(end=leader, others={"end": other})]
    assert tuple(code for code, _ in found) == codes
    fault = 1 - codes.index(75)
    assert found[1 - fault][1] == f"training stopped because node {fault} of 2 ended first: {found[fault][1]}"
    assert not any(running(one["pid"]) for one in pods.stage.started)


@pytest.mark.parametrize(("leader", "other", "fault"), [("crash", "wait", 0), ("wait", "SIGKILL", 1)])
def test_a_pod_that_is_not_at_fault_ends_after_the_one_that_is(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, leader: str, other: str, fault: int
) -> None:
    monkeypatch.setattr(rounds, "_OTHERS_SECONDS", 0.2)
    monkeypatch.setattr(rounds, "_BEHIND_SECONDS", 2.0)
    pods.tell(end=leader, others={"end": other})
    order: list[int] = []
    behind: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds == 2.0:
            behind.append(seconds)
            until(lambda: order == [fault])
        else:
            time.sleep(seconds)

    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    futures = [pods.start(index) for index in (0, 1)]
    for index, future in enumerate(futures):
        future.add_done_callback(lambda _, index=index: order.append(index))  # type: ignore[misc]
    for future in futures:
        ended(future)
    until(lambda: len(order) == 2)
    assert order == [fault, 1 - fault]
    assert behind == [2.0]


def test_a_stop_of_one_pod_is_a_stop_of_all(pods: Pods) -> None:
    pods.tell(end="wait and save", others={"end": "break when stopped"})
    futures = [pods.start(0), pods.start(1)]
    until(lambda: len(pods.stage.started) == 2)
    pods.stop(1)
    first, second = [failure(ended(future)) for future in futures]
    assert first == second
    assert first[0] == 75
    # "saved" by a process that had come to wait for the signal.
    assert first[1] in (STOPPED, "saved")


def test_what_a_pod_saved_counts_though_it_learns_of_a_stop_only_afterwards(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = rounds.launcher.run

    def run(context: Context, settings: Any, weights: Any, others: Rounds) -> Outcome:
        outcome = train(context, settings, weights, others)
        if context.node.leads:
            until(lambda: others._meeting.others[1].stop)
        return outcome

    monkeypatch.setattr(rounds.launcher, "run", run)
    monkeypatch.setattr(Rounds, "_watch", lambda *_: None)
    pods.tell(end="save", others={"end": "wait and save"})
    futures = [pods.start(0), pods.start(1)]
    until(lambda: len(pods.stage.started) == 2)
    pods.stop(1)
    for result in map(ended, futures):
        assert failure(result) == (75, "saved")
        assert isinstance(result, StageResult)
        assert result.checkpoint_step == 7


def test_a_pod_that_is_stopped_before_the_others_came_says_so(pods: Pods) -> None:
    def come_and_go(train: TrainRound) -> StageResult:
        until(lambda: "node/1" in pods.table.values)
        pods.stop(1)
        return OVER

    with pytest.raises(StopRequested):
        rounds.run(pods.contexts[1], come_and_go)
    pods.tell(fits=[8, "None"])
    assert failure(ended(pods.start(0))) == (75, f"training stopped because node 1 of 2 ended first: {STOPPED}")
    assert pods.stage.started == []


def test_a_pod_that_falls_silent_is_lost(pods: Pods, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_OTHERS_SECONDS", 0.2)
    pods.table.values["node/1"] = PodState(heartbeat=1).model_dump_json().encode()
    pods.tell(end="wait")
    lost = pods.start(0)
    until(lambda: pods.stage.started)
    continues_until(clock, lost.done)
    assert failure(ended(lost)) == (75, "training stopped because it lost contact with node 1 of 2")
    assert not any(running(one["pid"]) for one in pods.stage.started)


def test_the_leader_that_cannot_be_reached_any_more_is_lost(
    pods: Pods, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_OTHERS_SECONDS", 0.2)
    pods.tell(end="wait", others={"end": "wait"})
    futures = [pods.start(0), pods.start(1)]
    until(lambda: len(pods.stage.started) == 2)
    pods.table.cut_off.add(1)
    continues_until(clock, lambda: all(future.done() for future in futures))
    assert failure(ended(futures[1])) == (75, "training stopped because it lost contact with the leading pod")
    assert failure(ended(futures[0])) == (75, "training stopped because it lost contact with node 1 of 2")


def test_what_another_pod_reports_is_a_sign_of_life(pods: Pods) -> None:
    alive = threading.Event()
    other = PodState(heartbeat=1, reports=5)

    def watch(train: TrainRound) -> StageResult:
        pods.table.values["node/1"] = other.model_dump_json().encode()
        both = train.__self__  # type: ignore[attr-defined]
        both._start(None)
        with both.over([], alive.set):
            assert alive.wait(PATIENCE_SECONDS)
            alive.clear()
            pods.table.values["node/1"] = other.model_copy(update={"reports": 6}).model_dump_json().encode()
            assert alive.wait(PATIENCE_SECONDS)
        pods.table.values["node/1"] = other.model_copy(update={"final": OVER}).model_dump_json().encode()
        return OVER

    assert rounds.run(pods.contexts[0], watch) == OVER


def test_a_pod_that_speaks_is_not_lost_however_long_it_takes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_EVERY_SECONDS", 0.02)
    table = Table()
    met = [Rendezvous(Node(index, 2), lambda node, closing: table.end(node.index)) for index in (0, 1)]
    until(lambda: 1 in met[0].others)
    for _ in range(int(rendezvous._LOST_SECONDS) + 10):
        clock.now += 1
        beat = met[0].others[1].heartbeat
        until(lambda beat=beat: met[0].others[1].heartbeat > beat)  # type: ignore[misc]
        assert not met[0].lost(1)
    leaving = threading.Thread(target=met[0].leave, args=(OVER,))
    leaving.start()
    until(lambda: met[1].others[0].final)
    met[1].leave(OVER)
    leaving.join()


def test_the_pod_that_serves_goes_last(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_EVERY_SECONDS", 0.02)
    table = Table()
    met = [Rendezvous(Node(index, 2), lambda node, closing: table.end(node.index)) for index in (0, 1)]
    until(lambda: 1 in met[0].others)
    leaving = threading.Thread(target=met[0].leave, args=(OVER,))
    leaving.start()
    until(lambda: met[1].others[0].final == OVER)
    assert leaving.is_alive()
    met[1].leave(OVER)
    leaving.join(PATIENCE_SECONDS)
    assert not leaving.is_alive()
