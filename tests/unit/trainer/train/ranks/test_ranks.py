"""Together, the processes of a team learn every row of a step once, and all do what the leader decides."""

from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, Plan
from finetune_api.render import render
from finetune_trainer.data import step_order
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods import sft
from finetune_trainer.methods.interface import Decision
from finetune_trainer.methods.sft import SFTRow
from finetune_trainer.model import memory_fit
from finetune_trainer.runtime.node import ALONE, Node
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.train.ranks import ranks
from finetune_trainer.train.ranks.ranks import Ranks
from finetune_trainer.train.ranks.shard import filled, part
from finetune_trainer.train.ranks.step_sync import FollowerSync, LeaderSync
from tests.support.trainer_job import JOB
from tests.unit.api.strategies import unhurried

T = TypeVar("T")


def plan(batch_size: int) -> Plan:
    found = render(FineTuneJob.model_validate(JOB), Defaults(allow_cpu=True))
    return found.model_copy(update={"training": found.training.model_copy(update={"batch_size": batch_size})})


def rows(count: int) -> list[SFTRow]:
    return [SFTRow(i, [1, 2, 3], [0, 1, 1]) for i in range(count)]


def dealt(steps: list[list[int]], micro: int, rank: int, size: int) -> list[list[int]]:
    """Return what accelerate's dataloader gives to a process: each micro-batch to the next one in turn."""
    whole = [index for step in steps for index in step]
    batches = [whole[i : i + micro] for i in range(0, len(whole), micro)]
    return [batch for number, batch in enumerate(batches) if number % size == rank]


@unhurried
@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4), st.integers(1, 40), st.integers(1, 3))
def test_every_row_of_a_step_is_learned_once_in_that_step(
    micro: int, accumulation: int, size: int, count: int, epochs: int
) -> None:
    batch = micro * accumulation * size
    given_steps = list(step_order.steps(count, batch, 1, epochs=epochs))
    members = [Ranks(rank, size) for rank in range(size)]
    all_rows, steps = filled(rows(count), given_steps, plan(batch), members[0])
    own = [dealt(steps, micro, t.rank, size) for t in members]
    for number, wanted in enumerate(given_steps):
        mine = [o[number * accumulation : (number + 1) * accumulation] for o in own]
        learned = [index for one in mine for batch_ in one for index in batch_]
        assert sorted(i for i in learned if any(all_rows[i].completion_mask)) == sorted(wanted)
        for t in members:
            assert [index for batch_ in mine[t.rank] for index in batch_] == part(steps[number], micro, t)


def test_a_row_that_stands_in_teaches_nothing() -> None:
    all_rows, steps = filled(rows(5), [[0, 1, 2, 3], [4]], plan(4), Ranks(0, 2))
    assert steps == [[0, 1, 2, 3], [4, 5, 5, 5]]
    assert not any(all_rows[5].completion_mask)


def test_one_process_takes_the_steps_as_they_are() -> None:
    found = rows(5)
    assert filled(found, [[0, 1, 2, 3], [4]], plan(4), Ranks()) == (found, [[0, 1, 2, 3], [4]])
    assert part([3, 1, 2], 2, Ranks()) == [3, 1, 2]


def test_each_process_takes_its_part_of_the_batch() -> None:
    made = sft.settings(plan(8), "bf16", 60, Path("out"), MemorySettings(1, "None"), processes=4)
    assert made["per_device_train_batch_size"] * made["gradient_accumulation_steps"] == 2


def test_a_micro_batch_is_not_larger_than_the_part_of_one_process() -> None:
    assert memory_fit.candidates(plan(8), processes=4)[0] == MemorySettings(2, "None")
    assert memory_fit.usual(plan(8), processes=8) == MemorySettings(1, "Offload")


def test_a_process_knows_its_place_by_torchruns_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.join({}) == Ranks()
    assert ranks.variables(ALONE, 0, 1, 29500) == {}
    found = ranks.variables(ALONE, 1, 4, 29500)
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("1", "1", "4")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("127.0.0.1", "29500")


def test_ranks_are_counted_over_all_pods() -> None:
    found = [ranks.variables(Node(node, 3, "leader"), local, 2, 29500) for node in range(3) for local in range(2)]
    assert [(f["RANK"], f["GROUP_RANK"], f["LOCAL_RANK"]) for f in found] == [
        ("0", "0", "0"),
        ("1", "0", "1"),
        ("2", "1", "0"),
        ("3", "1", "1"),
        ("4", "2", "0"),
        ("5", "2", "1"),
    ]
    assert {(f["WORLD_SIZE"], f["LOCAL_WORLD_SIZE"]) for f in found} == {("6", "2")}
    assert [f["MASTER_ADDR"] for f in found] == ["127.0.0.1"] * 2 + ["leader"] * 4


def test_one_process_of_each_pod_fetches() -> None:
    assert [Ranks(rank, 4, rank - rank % 2).fetches for rank in range(4)] == [True, False, True, False]


class Wire:
    """Stands in for the connection of two processes, of which the test asks one after the other."""

    def __init__(self) -> None:
        self.wanted = False
        self.shared: list[Any] = []


class Member(Ranks):
    """One end of it."""

    def __init__(self, rank: int, wire: Wire) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "wire", wire)

    def any_true(self, wanted: bool) -> bool:
        self.wire.wanted |= wanted  # type: ignore[attr-defined]
        return bool(self.wire.wanted)  # type: ignore[attr-defined]

    def broadcast(self, value: T | None = None) -> T:
        if self.leads:
            self.wire.shared.append(value)  # type: ignore[attr-defined]
        found: T = self.wire.shared[-1]  # type: ignore[attr-defined]
        return found


class Training:
    """Stops and saves when it is asked to."""

    def __init__(self, stop: StopFlag) -> None:
        self.stop = stop

    def step_ends(self, done: int) -> Decision:
        return Decision(save=self.stop.requested or done == 2, stop=self.stop.requested)


def test_the_others_save_and_stop_when_the_leader_does() -> None:
    wire, stop = Wire(), StopFlag()
    leader = LeaderSync(Training(stop), Member(0, wire), stop, 1)  # type: ignore[arg-type]
    other = FollowerSync(Member(1, wire), StopFlag(), 1)
    for step in (1, 2, 3):
        assert leader.step_ends(step) == other.step_ends(step) == Decision(save=step == 2, stop=False)


def test_all_stop_when_any_of_them_is_asked_to() -> None:
    wire, stop, follower_stop = Wire(), StopFlag(), StopFlag()
    leader = LeaderSync(Training(stop), Member(0, wire), stop, 1)  # type: ignore[arg-type]
    with stop.deferred(), follower_stop.deferred():
        follower_stop.request()
        Member(1, wire).any_true(follower_stop.requested)
        assert leader.step_ends(1) == Decision(save=True, stop=True)
        assert FollowerSync(Member(1, wire), follower_stop, 1).step_ends(1) == Decision(save=True, stop=True)
