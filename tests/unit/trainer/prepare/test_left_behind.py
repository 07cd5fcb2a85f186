"""What prepare deletes from `.runs`: nothing that could still be somebody's."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_api.cleanup import VARIABLE, Neighbours, Owner
from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_trainer.errors import AccessDeniedError
from finetune_trainer.prepare import left_behind
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.storage.folder import FileStore
from tests.support.trainer_job import TrainerJob

NOW = datetime.now(UTC)
OWN, OTHER = "11111111-own", "22222222-other"
FILES = ("checkpoints/5/optimizer.pt", "owner.json", "prepare.json")


@pytest.fixture
def context(job: TrainerJob) -> Context:
    """The context of the job that cleans up."""
    plan = Plan.model_validate(job.plan)
    store = FileStore(job.output)
    return Context(plan, JobLayout("gym", "coach", OWN), store, ProgressReporter("prepare", 0), job.root, 0, StopFlag())


def neighbours(
    monkeypatch: pytest.MonkeyPatch,
    *,
    kept: tuple[str, ...] = (),
    failed: tuple[str, ...] = (),
    listed_at: datetime = NOW,
) -> None:
    found = Neighbours(
        cluster_id="here",
        listed_at=listed_at.isoformat(),
        kept=[uid[:8] for uid in kept],
        failed=[uid[:8] for uid in failed],
    )
    monkeypatch.setenv(VARIABLE, found.model_dump_json(by_alias=True))


def folder(context: Context, uid: str = OTHER, *, cluster: str | None = "here", days: float = 2) -> Path:
    """Make the state folder of another job, whose last change was some days ago."""
    store = context.store
    for name in FILES:
        store.put_bytes(f"gym/.runs/{uid}/{name}", b"{}")
    if cluster is None:
        store.delete(f"gym/.runs/{uid}/owner.json")
    else:
        owner = Owner(cluster_id=cluster, job="gym/earlier")
        store.put_bytes(f"gym/.runs/{uid}/owner.json", owner.model_dump_json(by_alias=True).encode())
    path = Path(store.uri.removeprefix("file://")) / "gym" / ".runs" / uid
    then = (NOW - timedelta(days=days)).timestamp()
    for file in files(path):
        os.utime(path / file, (then, then))
    return path


def files(path: Path) -> tuple[str, ...]:
    return tuple(sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()))


def clean(context: Context) -> None:
    left_behind.mark(context)
    left_behind.clean(context)


def test_the_folder_of_a_deleted_job_goes(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch)
    path = folder(context)
    clean(context)
    assert files(path) == ()


def test_a_suspended_job_is_never_cleaned(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch, kept=(OTHER,))
    path = folder(context, days=400)
    clean(context)
    assert files(path) == FILES


def test_a_second_cluster_on_the_same_bucket_is_never_touched(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours(monkeypatch)
    path = folder(context, cluster="elsewhere", days=400)
    clean(context)
    assert files(path) == FILES


def test_a_folder_without_a_marker_is_left_alone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch)
    path = folder(context, cluster=None)
    clean(context)
    assert len(files(path)) == 2


def test_a_damaged_marker_is_nobodys(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch)
    path = folder(context)
    then = (path / "owner.json").stat().st_mtime
    (path / "owner.json").write_bytes(b"{")
    os.utime(path / "owner.json", (then, then))
    clean(context)
    assert files(path) == FILES


def test_a_folder_that_changed_within_a_day_is_left_alone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch)
    path = folder(context, days=0.9)
    clean(context)
    assert files(path) == FILES


def test_one_new_file_keeps_the_whole_folder(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch)
    path = folder(context)
    os.utime(path / FILES[0])
    clean(context)
    assert files(path) == FILES


def test_a_job_that_may_be_newer_than_the_list_is_left_alone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod waited for days since the operator looked."""
    neighbours(monkeypatch, listed_at=NOW - timedelta(days=3))
    path = folder(context, days=2)
    clean(context)
    assert files(path) == FILES


def test_a_clock_of_the_operator_that_is_ahead_does_no_harm(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch, listed_at=NOW + timedelta(days=300))
    path = folder(context, days=0.5)
    clean(context)
    assert files(path) == FILES


def test_a_job_that_failed_long_ago_loses_its_checkpoints_only(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours(monkeypatch, failed=(OTHER,))
    path = folder(context)
    clean(context)
    assert files(path) == ("owner.json", "prepare.json")


def test_the_own_folder_is_kept_though_the_list_does_not_have_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours(monkeypatch)
    path = folder(context, OWN)
    clean(context)
    assert files(path) == FILES


def test_results_and_other_namespaces_are_not_looked_at(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours(monkeypatch)
    store = context.store
    others = ("gym/earlier/run/adapter.safetensors", "gym/.index/run.json", "box/.runs/33333333/owner.json")
    root = Path(store.uri.removeprefix("file://"))
    for key in others:
        store.put_bytes(key, Owner(cluster_id="here", job="x").model_dump_json(by_alias=True).encode())
        os.utime(root / key, (0, 0))
    clean(context)
    assert all((root / key).is_file() for key in others)


def test_without_the_operators_word_nothing_is_marked_or_cleaned(context: Context) -> None:
    path = folder(context)
    clean(context)
    assert files(path) == FILES
    assert context.store.list(context.layout.state) == []


def test_a_cleanup_that_is_refused_does_not_fail_the_job(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    neighbours(monkeypatch)
    folder(context)

    def refuse(self: FileStore, key: str) -> None:
        raise AccessDeniedError(f"no right to delete {key}")

    monkeypatch.setattr(FileStore, "delete", refuse)
    clean(context)
    assert "no right to delete" in caplog.text


def test_a_cleanup_that_was_interrupted_is_continued_by_the_next(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours(monkeypatch)
    path = folder(context)
    delete, calls = FileStore.delete, iter((True, False))

    def once(self: FileStore, key: str) -> None:
        if not next(calls):
            raise AccessDeniedError("interrupted")
        delete(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "delete", once)
        clean(context)
    assert "owner.json" in files(path)
    clean(context)
    assert files(path) == ()
