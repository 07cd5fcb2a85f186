from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.cleanup import MAXIMUM_JOBS
from finetune_operator.clock import format_time
from finetune_operator.neighbours import FullList

NOW = datetime(2026, 1, 10, tzinfo=UTC)


def job(uid: str, *, failed: timedelta | None = None, namespace: str = "team", **status: Any) -> dict[str, Any]:
    if failed is not None:
        status["conditions"] = [{"type": "Failed", "status": "True"}]
        status["completionTime"] = format_time(NOW - failed)
    return {"metadata": {"namespace": namespace, "uid": uid}, "status": status}


def listed(*jobs: dict[str, Any]) -> FullList:
    full_list = FullList("cluster", NOW)
    for found in jobs:
        full_list.add(found)
    return full_list


def test_a_job_that_exists_is_kept_whatever_it_does() -> None:
    found = listed(job("suspended-1"), job("new-------1", phase="Pending")).of("team")
    assert found is not None
    assert (found.kept, found.failed) == (["new-----", "suspende"], [])


def test_a_job_that_failed_a_moment_ago_is_kept_since_it_may_be_reopened() -> None:
    found = listed(job("a" * 36, failed=timedelta(days=6))).of("team")
    assert found is not None
    assert (found.kept, found.failed) == (["a" * 8], [])


def test_a_job_that_failed_long_ago_keeps_no_checkpoints() -> None:
    found = listed(job("a" * 36, failed=timedelta(days=8))).of("team")
    assert found is not None
    assert (found.kept, found.failed) == ([], ["a" * 8])


def test_a_namespace_knows_only_its_own_jobs() -> None:
    found = listed(job("a" * 36), job("b" * 36, namespace="other")).of("team")
    assert found is not None
    assert found.kept == ["a" * 8]


def test_a_namespace_without_jobs_had_none_when_the_list_was_made() -> None:
    found = listed().of("team")
    assert found is not None
    assert (found.kept, found.listed_at) == ([], "2026-01-10T00:00:00Z")


def test_too_many_jobs_are_not_passed_on() -> None:
    many = [job(f"{number:08d}") for number in range(MAXIMUM_JOBS + 1)]
    assert listed(*many[:-1]).of("team") is not None
    assert listed(*many).of("team") is None
