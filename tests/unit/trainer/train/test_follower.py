"""A process of another pod than the leader's has nothing but the bucket in common with it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from finetune_api.layout import JobLayout
from finetune_trainer.errors import StageError
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.train.checkpoints import Checkpoints
from finetune_trainer.train.follower import Follower
from finetune_trainer.train.ranks.ranks import Ranks

T = TypeVar("T")
RUN = "a" * 64


class Member(Ranks):
    """Of a team whose other members are not there."""

    def broadcast_in_pod(self, value: T) -> T:
        return value


def follower(root: Path, ranks: Ranks) -> Follower:
    layout = JobLayout("gym", "coach", "uid")
    context: Any = SimpleNamespace(store=FileStore(root / "store"), layout=layout, scratch=root / "scratch")
    description: Any = SimpleNamespace(run_id=RUN)
    return Follower(context, description, None, ranks)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(FileStore(tmp_path / "store"), JobLayout("gym", "coach", "uid").checkpoints, RUN, "order")
    folder = tmp_path / "leader"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"moments")
    made.upload(folder, 7)
    return made


def test_the_first_process_of_a_pod_brings_the_checkpoint_to_where_all_look(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    marker = checkpoints.newest()
    assert marker is not None
    folder = follower(tmp_path, Member(2, 4, 2))._checkpoint(marker)
    assert folder == tmp_path / "scratch/trainer/checkpoint-7"
    assert (folder / "optimizer.pt").read_bytes() == b"moments"
    assert follower(tmp_path, Member(3, 4, 2))._checkpoint(marker) == folder


def test_the_other_processes_of_a_pod_leave_that_to_the_first(checkpoints: Checkpoints, tmp_path: Path) -> None:
    marker = checkpoints.newest()
    assert marker is not None
    assert not follower(tmp_path, Member(3, 4, 2))._checkpoint(marker).exists()


def test_a_checkpoint_that_only_the_leader_could_read_is_tried_again(checkpoints: Checkpoints, tmp_path: Path) -> None:
    marker = checkpoints.newest()
    assert marker is not None
    checkpoints.discard(7)
    with pytest.raises(StageError) as caught:
        follower(tmp_path, Member(2, 4, 2))._checkpoint(marker)
    assert caught.value.exit_code == 69
